"""The witness: the host's own durable memory of one migration. What it says was decided is decided.

It holds the last decision, the faults of the attempt, the flag that cloning was entered with, and the last journal record
that all this relied on. It is written before a decision is acted on. Its file carries a checksum over the whole, so that a
torn or damaged witness is known for what it is.
"""

import hashlib
import logging
from dataclasses import dataclass

import orjson

from services.write_cloning.openings import Openings
from services.write_cloning.storage import Storage
from shared.earlier_state import SUFFIX
from shared.messages.admission import UnreadableWitness, WitnessView
from shared.messages.codec import decode, encode
from shared.messages.recording import FaultReport
from shared.migration.devices import Side
from shared.migration.names import NAME_RULE, is_valid_name
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Facts, with_faults

log = logging.getLogger(__name__)

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """One migration, as its host has decided."""

    version: int = VERSION
    migration: str
    uuid: str
    host: str
    run: int
    state: State | None  # None: it is being removed
    authority: Side = Side.SOURCE
    attempt: int = 0
    decision: int
    operation_id: str  # of the last decision
    trigger: str
    detail: str = ""
    tail_digest: str = ""  # the last journal record that was relied on
    flag_digest: str = ""  # the flag-set record that cloning was entered with
    spent_flag_digest: str = (
        ""  # the flag-set record whose clear was last asked for: nobody enters with it again
    )
    faults: tuple[FaultReport, ...] = ()  # of the attempt
    devices: DevicePair
    paused: bool = False
    throttle_bytes_per_s: int | None = None
    needs_verify: bool = False  # the attempt began with a partial resync: `commit` wants a completed `verify`
    region_map: str = ""  # the map that is trusted to say where the sides may differ; empty: none
    full_because: str = ""  # why the next resync copies everything, where no map is trusted
    verified_at: str | None = None  # when the last comparison of the attempt found both sides equal
    # When source and target were last changed, once they were closed (`last_changes`). Empty: no stop was clean since the start.
    last_changes: tuple[int, ...] = ()
    # Remote sides that may hold requests of a connection that was not closed (`fences`).
    unfenced: tuple[Side, ...] = ()

    def fault_count(self, side: Side) -> int:
        """Faults of one side in this attempt."""
        return sum(fault.side is side for fault in self.faults)

    @property
    def facts(self) -> Facts:
        """What the state table decides on; the flag is the journal's affair and left at its default."""
        return with_faults(Facts(state=self.state, authority=self.authority), self.faults)

    def view(self, opened_run: int | None) -> WitnessView:
        """What startup needs to know of it, and when the volume was last opened."""
        return WitnessView(
            migration=self.migration,
            uuid=self.uuid,
            host=self.host,
            run=self.run,
            state=self.state,
            authority=self.authority,
            attempt=self.attempt,
            decision=self.decision,
            operation_id=self.operation_id,
            trigger=self.trigger,
            detail=self.detail,
            tail_digest=self.tail_digest,
            flag_digest=self.flag_digest,
            spent_flag_digest=self.spent_flag_digest,
            opened_run=opened_run,
            faults=self.faults,
            devices=self.devices,
            has_map=bool(self.region_map),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sealed:
    """What stands in the file."""

    sha256: str
    witness: Witness


class Witnesses:
    """All witnesses of a host."""

    def __init__(self, storage: Storage, openings: Openings | None = None) -> None:
        """Keep them in `storage`, a file each; when volumes were opened is better kept elsewhere than beside them."""
        self._storage = storage
        self.openings = openings or Openings(storage)
        self._strange: set[str] = set()  # names of files that were told of

    async def write(self, witness: Witness) -> None:
        """Make a witness durable."""
        await self._storage.put(
            witness.migration + SUFFIX, encode(_Sealed(sha256=_seal(witness), witness=witness))
        )

    async def forget(self, migration: str, uuid: str | None) -> None:
        """Remove a witness; its migration exists no more, which is remembered first."""
        if uuid is not None:
            await self.openings.forget(uuid)
        await self._storage.remove(migration + SUFFIX)

    async def discard(self, migration: str) -> None:
        """Remove a witness that was never told of to anyone."""
        await self._storage.remove(migration + SUFFIX)

    async def read_all(self) -> tuple[list[Witness], list[UnreadableWitness]]:
        """Every witness, and those that cannot be read or believed, with the reason.

        Raises:
            OSError: it cannot be known which there are.
        """
        readable: list[Witness] = []
        unreadable: list[UnreadableWitness] = []
        for name in await self._storage.names():
            if not name.endswith(SUFFIX):
                continue
            migration = name.removesuffix(SUFFIX)
            # As of a copy that somebody keeps; startup would judge none beside it.
            if not is_valid_name(migration):
                self._tell_strange(name)
                continue
            try:
                readable.append(_open_seal(migration, await self._storage.get(name) or b""))
            except Refusal as refusal:
                unreadable.append(UnreadableWitness(migration=migration, reason=refusal.message))
            except OSError as error:  # of this file alone: the others are as good as ever
                reason = f"it cannot be read ({error.strerror or error})"
                unreadable.append(UnreadableWitness(migration=migration, reason=reason))
        return readable, unreadable

    def _tell_strange(self, name: str) -> None:
        """Once: a host that waits for its admission reads them all again and again."""
        if name not in self._strange:
            self._strange.add(name)
            log.warning("the file %r is passed over: no migration has such a name (%s)", name, NAME_RULE)


def _seal(witness: object) -> str:
    return hashlib.sha256(orjson.dumps(witness)).hexdigest()


def _open_seal(migration: str, content: bytes) -> Witness:
    """Raises Refusal when the content is torn, foreign, or of a newer version."""
    sealed = decode(_Sealed, content)
    witness = sealed.witness
    if witness.version > VERSION:
        raise Refusal(Code.NEWER_VERSION, f"it is of version {witness.version}, this program reads {VERSION}")
    # Over what stands in the file: an older version's lacks the fields that were added since, and is whole all the same.
    if _seal(orjson.loads(content)["witness"]) != sealed.sha256:
        raise Refusal(Code.BAD_REQUEST, "its checksum does not match its content")
    if witness.migration != migration:
        raise Refusal(Code.BAD_REQUEST, f"it is of migration {witness.migration}")
    return witness
