"""What a host asks before it opens any volume (`cutover.startup.admit.HOST`), and what startup answers.

The request carries the host's witnesses: what it decided, and the last journal record that each decision relied on.
"""

from dataclasses import dataclass

from shared.messages.recording import FaultReport
from shared.migration.devices import Side
from shared.migration.records import DevicePair
from shared.migration.states import State


def admission_subject(host: str) -> str:
    """Where a host asks for admission."""
    return f"cutover.startup.admit.{host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessView:
    """What a host's witness of one migration holds. `state` is None when it was being removed."""

    migration: str
    uuid: str
    host: str
    run: int  # that wrote it
    state: State | None
    authority: Side
    attempt: int
    decision: int
    operation_id: str  # of the decision
    trigger: str  # of the decision
    detail: str
    tail_digest: str  # the last journal record that it relied on
    flag_digest: str  # the flag-set record that it entered cloning with; empty when none
    spent_flag_digest: str = ""  # the flag-set record whose clear was last asked for
    opened_run: int | None = None  # in which the host last opened the volume; None when it does not know
    faults: tuple[FaultReport, ...]  # of the attempt, stored or not
    devices: DevicePair
    has_map: bool = False  # it names a region map, by which not everything may have to be copied again


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableWitness:
    """A witness that is there and cannot be believed."""

    migration: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """A run in which a host has asked for admission, by the `life` that what is recorded for that bears."""

    run: int
    life: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAway:
    """That another host has a migration by an operator's word, as the host that had it has read in the journal."""

    migration: str
    uuid: str
    host: str  # that has it
    digest: str  # of the record since which this host has it no more
    decision: int  # of that record


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRequest:
    """The host holds the lock on its state directory and has no volume open."""

    host: str
    run: int
    life: str = ""  # of the process, as its service's metadata has it
    question: str = ""  # the name of this one, which the records that startup asks for bear as their `life`
    only: str = ""  # one migration, which this very process does not have open; all of them when empty
    # Of a question in parts, each of which fits into a message: the names that this one is about. Empty: no bound.
    names_from: str = ""
    names_before: str = ""
    asked_before: bool = False  # in this run; if not, nobody can have recorded anything of it
    witnesses: tuple[WitnessView, ...] = ()
    unreadable: tuple[UnreadableWitness, ...] = ()
    admitted_run: int | None = (
        None  # the last one that was, by the state directory; None where that does not say
    )
    tried: tuple[Try, ...] = ()  # by the state directory: since then, and before while a volume stays closed
    given_away: tuple[GivenAway, ...] = ()  # by the state directory: not opened by a journal from before that

    def covers(self, migration: str) -> bool:
        """Whether the verdict on this migration is asked for."""
        if self.only:
            return migration == self.only
        return self.names_from <= migration and (not self.names_before or migration < self.names_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """One migration that may open, in this state, with these facts; the host writes them into its witness first."""

    migration: str
    uuid: str
    label: str
    state: State
    authority: Side
    attempt: int
    decision: int
    tail_digest: str
    flag_digest: str  # of the flag-set record now in force; empty when the flag is clear
    source_faults: int
    target_faults: int  # without the one that an unclean stop is
    devices: DevicePair
    reason: str
    is_witness_believed: bool = False  # otherwise nothing that the host's witness or region map says counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """One migration that stays closed: why, and what would have admitted it."""

    migration: str
    uuid: str | None
    code: str
    message: str
    given_away: GivenAway | None = None  # where that is why: the host keeps it in mind


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionReply:
    """The verdicts. `removed` names migrations whose tombstone the journal holds: their witnesses may be forgotten."""

    admitted: tuple[Admission, ...] = ()
    closed: tuple[Closed, ...] = ()
    removed: tuple[str, ...] = ()
