"""What may be asked of the journal's two owners: fault_recording (flags and faults) and state_control (decisions).

`cutover.record.WHAT.HOST.MIGRATION`, with `flag-set`, `flag-clear` or `fault` for WHAT; `cutover.decision.HOST.MIGRATION`
and `cutover.decision.repair.HOST.MIGRATION`. HOST is the host that speaks, or that is spoken for: a host may publish
where its own name stands, and nowhere else. An answer means stored: JetStream has acknowledged it, or it was there
already under the same operation id.
"""

from dataclasses import dataclass

from shared.migration.devices import Side
from shared.migration.ledger import Entry
from shared.migration.records import DevicePair
from shared.migration.states import State


def record_subject(what: str, host: str, migration: str) -> str:
    """Where `flag-set`, `flag-clear` and `fault` are sent."""
    return f"cutover.record.{what}.{host}.{migration}"


def decision_subject(host: str, migration: str) -> str:
    """Where a decision is sent."""
    return f"cutover.decision.{host}.{migration}"


def repair_subject(host: str, migration: str) -> str:
    """Where a repair is sent. One token longer than a decision's: a host may be called `repair`, and may decide."""
    return f"cutover.decision.repair.{host}.{migration}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who speaks, of what. Anything from another UUID, an older run or decision than the journal's is refused.

    `relies_on` is the last record that the asker knows to be stored. On a journal that lacks it nothing is stored: it has
    gone back, and what came on top would hide that.
    """

    migration: str
    uuid: str
    attempt: int
    host: str
    run: int
    decision: int
    operation_id: str
    relies_on: str = ""  # its digest; empty for none
    life: str = ""  # of the question for admission for which startup speaks; of an operator's word, that of the run's last record


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultReport:
    """A device fault as it was detected. `operation_id` makes repeating the report harmless."""

    operation_id: str
    side: Side
    state: State
    attempt: int
    operation: str
    cause: str
    errno: int | None = None
    offset: int | None = None
    length: int | None = None
    detected_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFlagRequest:
    """Set the error flag. Stored only on the tail that it was decided on, `tail_digest`.

    Otherwise one that comes late would stand in the place of the flag that somebody has been entering cloning with since.
    """

    origin: Origin
    tail_digest: str = ""  # of an earlier version, which does not say: refused as one that comes late


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearFlagRequest:
    """Clear the flag that the record `set_digest` set. Stored only on the tail that it was decided on; the faults go first.

    `tail_digest` is the last record that the asker has seen and relied on; the faults named here and records that this
    very request left behind may follow it, nothing else may.
    """

    origin: Origin
    set_digest: str
    tail_digest: str
    faults: tuple[FaultReport, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFaultRequest:
    """Append one fault to the log."""

    origin: Origin
    fault: FaultReport


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRequest:
    """A decision that is durable in the host's witness, or made by startup for a host that is down. No `state`: removal.

    It is appended whatever the recorded state or faults say; only an older run, decision or another UUID is refused.
    """

    origin: Origin
    state: State | None
    authority: Side
    trigger: str
    detail: str = ""
    devices: DevicePair | None = None  # in the first decision of a migration


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairRequest:
    """Let the chain go on from its last intact record with what the witness holds."""

    origin: Origin
    witness_digest: str
    state: State
    authority: Side
    target_fault: bool
    source_fault: bool
    reason: str
    devices: DevicePair


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReply:
    """Where the record stands now."""

    sequence: int
    index: int
    digest: str

    @classmethod
    def of(cls, entry: Entry) -> "StoredReply":
        """Of a record as it stands in the journal."""
        return cls(sequence=entry.sequence, index=entry.record.index, digest=entry.digest)
