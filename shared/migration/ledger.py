"""What a chain of records says: the fold of one migration's journal into the facts that decisions are made on.

The fold also proves the chain: each record must follow the one before, by index and digest. Records that do not are
strays; a chain with strays is unsound until a repair record, which follows the last intact one, says what goes on. So a
journal that lost a block in its middle, or went back, is never read as if nothing had happened.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from shared.migration.devices import Side
from shared.migration.records import (
    ADOPTED,
    GENESIS_DIGEST,
    AnyRecord,
    DevicePair,
    FaultRecord,
    FlagClearRecord,
    FlagSetRecord,
    IntentRecord,
    Kind,
    RepairRecord,
    StateRecord,
    TombstoneRecord,
)
from shared.migration.states import Flag, State
from shared.migration.table import Facts, with_faults


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored record: its sequence in the stream, itself, and the digest of its bytes."""

    sequence: int
    record: AnyRecord
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The place where a chain ends. `sequence` is the stream's last for the migration's subjects, 0 for an empty chain."""

    sequence: int = 0
    index: int = 0  # of the last intact record; the first record of a chain has index 1
    digest: str = GENESIS_DIGEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """One migration as the journal tells it. The facts are of the current life: what follows the last tombstone."""

    migration: str
    tail: Tail
    broken: str | None  # why the chain is unsound; None when it is intact
    entries: tuple[Entry, ...]  # intact ones, of every life, in order
    uuid: str | None = None  # None when no migration of this name exists
    host: str = ""
    run: int = 0
    decision: int = 0
    attempt: int = 0
    state: State | None = None
    authority: Side = Side.SOURCE
    flag: Flag = Flag.NEVER
    flag_entry: Entry | None = None  # the last flag record; the repair where that set it
    devices: DevicePair | None = None
    commit_intended: bool = False
    adoption: Entry | None = (
        None  # the last decision that changed anything, where that is an operator's word and no flag was set since
    )
    faults: tuple[FaultRecord, ...] = ()  # of the current attempt
    all_faults: tuple[FaultRecord, ...] = ()  # of the current life
    repaired_faults: frozenset[Side] = frozenset()  # that a repair record asserts for the current attempt

    @property
    def exists(self) -> bool:
        """Whether a migration of this name is there: set up and not cleaned up."""
        return self.uuid is not None

    def fault_count(self, side: Side) -> int:
        """Faults of one side in the current attempt."""
        return sum(fault.side is side for fault in self.faults) + (side in self.repaired_faults)

    @property
    def facts(self) -> Facts:
        """What the state table decides on."""
        asserted = Facts(
            state=self.state,
            authority=self.authority,
            flag=self.flag,
            source_faults=Side.SOURCE in self.repaired_faults,
            source_flush_faults=Side.SOURCE in self.repaired_faults,  # it may have been one
            target_faults=Side.TARGET in self.repaired_faults,
        )
        return with_faults(asserted, self.faults)

    def contains(self, digest: str) -> bool:
        """Whether the chain holds the record of this digest, or a repair that stands for it. The genesis is in every chain."""
        return digest == GENESIS_DIGEST or any(
            digest == entry.digest
            or (isinstance(entry.record, RepairRecord) and entry.record.witness_digest == digest)
            for entry in self.entries
        )

    @property
    def life(self) -> str:
        """What the last record of the ledger's run bears, for what is recorded of it by others than its host."""
        own = (each.record for each in reversed(self.entries))
        return next((each.life for each in own if (each.host, each.run) == (self.host, self.run)), "")

    def has_had(self, uuid: str | None) -> bool:
        """Whether it tells of the migration of this UUID, be it only of its end."""
        return any(entry.record.uuid == uuid for entry in self.entries)

    def operation(
        self, operation_id: str, kind: Kind | None = None, *, uuid: str | None = None
    ) -> Entry | None:
        """The record, of this kind, that an operation left, however often it was asked for.

        One operation may leave records of several kinds: a commit its intent and then its decision. What an earlier migration of
        the name has left under the same id is no answer: it has to be of this UUID, or else of the migration that exists, or of
        the last one where none does.
        """
        whose = uuid or self.uuid or (self.entries[-1].record.uuid if self.entries else None)
        return next(
            (
                entry
                for entry in self.entries
                if (entry.record.operation_id, entry.record.uuid) == (operation_id, whose)
                and kind in {None, entry.record.kind}
            ),
            None,
        )


def fold(migration: str, stored: Iterable[Entry]) -> Ledger:
    """Fold the stored records of one migration, in stream order, into its ledger."""
    folding = Folding(migration)
    for entry in stored:
        folding.add(entry)
    return folding.ledger()


class Folding:
    """One chain that is being folded, record by record."""

    def __init__(self, migration: str, *, keeps_ended_lives: bool = True) -> None:
        """`keeps_ended_lives` is whether the ledger tells every record of a life that is over, or its tombstone alone."""
        self._migration = migration
        self._keeps_ended_lives = keeps_ended_lives
        self._sequence = 0
        self._index = 0
        self._digest = GENESIS_DIGEST
        self._broken: str | None = None
        self._entries: list[Entry] = []
        self._begin_life()

    def _begin_life(self) -> None:
        self._uuid: str | None = None
        self._host = ""
        self._run = 0
        self._decision = 0
        self._attempt = 0
        self._state: State | None = None
        self._authority = Side.SOURCE
        self._flag = Flag.NEVER
        self._flag_entry: Entry | None = None
        self._devices: DevicePair | None = None
        self._commit_intended = False
        self._adoption: Entry | None = None
        self._faults: list[FaultRecord] = []
        self._repaired: dict[int, frozenset[Side]] = {}

    def add(self, entry: Entry) -> None:
        """Take one more record: check its place in the chain, then apply what it says."""
        record = entry.record
        self._sequence = entry.sequence
        follows = record.index == self._index + 1 and record.previous_digest == self._digest
        if not follows:
            self._break(entry, f"follows neither record {self._index} nor a repair of it")
            return
        if isinstance(record, RepairRecord):
            self._broken = None
        elif self._broken is not None:
            return
        if record.migration != self._migration:
            self._break(entry, f"belongs to migration {record.migration!r}")
            return
        if self._uuid is not None and record.uuid != self._uuid:
            self._break(entry, f"is of UUID {record.uuid}, not {self._uuid}")
            return
        self._index, self._digest = record.index, entry.digest
        self._entries.append(entry)
        self._apply(entry)

    def _end_life(self) -> None:
        if not self._keeps_ended_lives:
            self._entries = [each for each in self._entries if isinstance(each.record, TombstoneRecord)]
        self._begin_life()

    @property
    def is_over(self) -> bool:
        """Whether no migration is there, by a chain that is whole."""
        return self._uuid is None and self._broken is None

    def pass_over(self, sequence: int) -> None:
        """Go past a message that is no record: the next one is stored after it."""
        self._sequence = sequence

    def _break(self, entry: Entry, why: str) -> None:
        if self._broken is None:
            self._broken = f"the record at stream sequence {entry.sequence} {why}"

    def _apply(self, entry: Entry) -> None:
        record = entry.record
        if isinstance(record, TombstoneRecord):
            self._end_life()
            return
        self._uuid = record.uuid
        # The runs of one host say nothing of another's, to which an operator may have given the migration.
        self._run = max(self._run, record.run) if record.host == self._host else record.run
        self._host = record.host
        match record:
            case StateRecord():
                self._decide(record)
                is_opening = (record.state, record.authority) == (self._state, self._authority)
                self._state, self._authority = record.state, record.authority
                self._devices = record.devices or self._devices
                self._commit_intended = False
                if record.trigger == ADOPTED:
                    self._adoption = entry
                elif not is_opening:
                    self._adoption = None
            case RepairRecord():
                self._decide(record)
                self._state, self._authority = record.state, record.authority
                self._devices = record.devices
                self._flag, self._flag_entry = Flag.SET, entry
                sides = ((Side.SOURCE, record.source_fault), (Side.TARGET, record.target_fault))
                self._adoption = None
                self._repaired[record.attempt] = frozenset(side for side, faulted in sides if faulted)
            case FlagSetRecord():
                self._flag, self._flag_entry = Flag.SET, entry
                self._adoption = None
            case FlagClearRecord():
                self._flag, self._flag_entry = Flag.CLEAR, entry
            case FaultRecord():
                self._faults.append(record)
            case IntentRecord():
                self._commit_intended = True

    def _decide(self, record: StateRecord | RepairRecord) -> None:
        # Only a decision begins an attempt: a flag is set, and a fault may be stored, before the decision that they belong to.
        self._decision = max(self._decision, record.decision)
        self._attempt = max(self._attempt, record.attempt)

    def ledger(self) -> Ledger:
        """What has been folded so far."""
        return Ledger(
            migration=self._migration,
            tail=Tail(sequence=self._sequence, index=self._index, digest=self._digest),
            broken=self._broken,
            entries=tuple(self._entries),
            uuid=self._uuid,
            host=self._host,
            run=self._run,
            decision=self._decision,
            attempt=self._attempt,
            state=self._state,
            authority=self._authority,
            flag=self._flag,
            flag_entry=self._flag_entry,
            devices=self._devices,
            commit_intended=self._commit_intended,
            adoption=self._adoption,
            faults=tuple(fault for fault in self._faults if fault.attempt == self._attempt),
            all_faults=tuple(self._faults),
            repaired_faults=self._repaired.get(self._attempt, frozenset()),
        )
