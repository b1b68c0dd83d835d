"""The journal's records. One chain per migration, whatever subject a record stands on: each names the digest of the one before.

A record is only ever added. Fields are only ever added, with a default, and `VERSION` goes up when a reader that does not
know a new field would decide wrongly; a record of a newer version is refused, never guessed at.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from shared.migration.devices import DeviceIdentity, DeviceKind, Side
from shared.migration.states import State

VERSION = 1
ADOPTED = "adopt"  # the trigger of the one decision that is an operator's word, and not a host's or startup's
UNCLEAN_SHUTDOWN = "unclean-shutdown"  # the cause of the one target fault that no device has caused
GENESIS_DIGEST = ""  # what the first record of a chain names as the one before


class Kind(StrEnum):
    """What a record tells."""

    STATE = "state"
    INTENT = "intent"
    REPAIR = "repair"
    TOMBSTONE = "tombstone"
    FLAG_SET = "flag-set"
    FLAG_CLEAR = "flag-clear"
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What every record carries. `index` and `previous_digest` are its place in the chain, filled in when it is appended."""

    kind: Kind
    version: int = VERSION
    migration: str
    uuid: str
    attempt: int
    host: str
    run: int  # of the host; counts up with every start
    decision: int  # of the host; only grows within a UUID
    operation_id: str  # names what was asked for, so that asking again does not do it again
    recorded_at: str  # RFC 3339, UTC
    index: int = 0
    previous_digest: str = GENESIS_DIGEST
    life: str = ""  # of the question for admission, where startup asked for it: tells a run from another of that number


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePair:
    """The two devices of a migration, as they were when it was set up."""

    source: DeviceIdentity
    target: DeviceIdentity

    def of(self, side: Side) -> DeviceIdentity:
        """The one of a side."""
        return self.source if side is Side.SOURCE else self.target

    @property
    def remote_sides(self) -> tuple[Side, ...]:
        """Those that no lock of a kernel's fences (rule R6)."""
        return tuple(side for side in Side if self.of(side).kind is DeviceKind.REMOTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecord(Record):
    """A transition that the host decided. The last one is the recorded state. `devices` stands in the first alone.

    One that startup records with the state unchanged says that a run of the host opens the volume.
    """

    kind: Kind = Kind.STATE
    state: State
    authority: Side
    trigger: str  # of the table, or the label of a verdict
    detail: str = ""
    devices: DevicePair | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentRecord(Record):
    """A commit was asked for. It decides nothing; whoever adopts the migration of a lost host must know of it."""

    kind: Kind = Kind.INTENT


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairRecord(Record):
    """The journal had gone back or was damaged: the chain goes on from its last intact record with what the witness holds.

    It counts as containing the witness's record, and as setting the flag: what was lost may have been a set.
    """

    kind: Kind = Kind.REPAIR
    witness_digest: str  # of the journal record that the witness relied on
    state: State
    authority: Side
    target_fault: bool
    source_fault: bool
    reason: str
    devices: DevicePair


@dataclass(frozen=True, slots=True, kw_only=True)
class TombstoneRecord(Record):
    """The migration was cleaned up, or given up. The name may be used again, under a new UUID."""

    kind: Kind = Kind.TOMBSTONE
    state: State  # that it ended in
    given_up: bool = False  # by the operator's word, while its volume was closed: no side may hold all


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagSetRecord(Record):
    """Writes are being cloned from here on; a startup that finds this record last knows that the stop was not clean."""

    kind: Kind = Kind.FLAG_SET


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagClearRecord(Record):
    """Nothing is at stake any more. Names the set record that it answers, and stands directly on the tail it was decided on."""

    kind: Kind = Kind.FLAG_CLEAR
    set_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord(Record):
    """One device of one attempt can no longer be trusted."""

    kind: Kind = Kind.FAULT
    side: Side
    state: State  # in which it was detected
    operation: str  # write, zero, trim, read, flush; `open` at a start; `shutdown` where startup concluded it
    cause: str  # the errno's name, `timeout`, `unclean-shutdown`…
    errno: int | None = None
    offset: int | None = None
    length: int | None = None
    detected_at: str  # RFC 3339, UTC


AnyRecord = (
    StateRecord
    | IntentRecord
    | RepairRecord
    | TombstoneRecord
    | FlagSetRecord
    | FlagClearRecord
    | FaultRecord
)


class Subjects:
    """The subjects of the journal. A pattern ending in `>` covers every record of one migration."""

    STREAM: ClassVar[str] = "CUTOVER_JOURNAL"
    ALL: ClassVar[str] = "cutover.journal.>"

    @staticmethod
    def chain(migration: str) -> str:
        """Every record of one migration."""
        return f"cutover.journal.{migration}.>"

    @staticmethod
    def of(record: AnyRecord) -> str:
        """The one subject that a record belongs on."""
        match record:
            case FlagSetRecord() | FlagClearRecord():
                return f"cutover.journal.{record.migration}.flag"
            case FaultRecord():
                return f"cutover.journal.{record.migration}.fault.{record.side}"
            case StateRecord() | IntentRecord() | RepairRecord() | TombstoneRecord():
                return f"cutover.journal.{record.migration}.state"


def digest_of(payload: bytes) -> str:
    """The digest by which the next record names this one: SHA-256 of the stored bytes, in hex."""
    return hashlib.sha256(payload).hexdigest()
