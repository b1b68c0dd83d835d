"""Everything that is known of one migration, and when each part of it was heard. Pure.

Three sources tell of it: the host's progress, the journal's records, and state_control's answers, which join both. What was
decided later counts, by the number of the decision; of the rest, what was heard later.
"""

from dataclasses import dataclass, field

from services.monitoring.series import Series
from services.monitoring.stories import Story, Telling
from shared.messages.status import (
    FaultView,
    HostView,
    MigrationStatus,
    UnlistedMigration,
    application_trouble,
)
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.records import AnyRecord, FlagClearRecord, FlagSetRecord, RepairRecord, StateRecord
from shared.migration.states import State

FAULTS_KEPT_MAX = 200  # the newest, of each migration
TOLD_WITHIN_S = 1.0  # a host tells of every change so soon
REST_AFTER_S = 3.0
_WITHOUT_RECORDS = frozenset({JournalCondition.UNKNOWN, JournalCondition.PENDING})


@dataclass(slots=True, kw_only=True)
class History:
    """The stories of one migration, read from the journal, and those that came since."""

    stories: list[Story]
    is_whole: bool  # False: the oldest were left out
    last_index: int
    telling: Telling  # that has told the last of them


@dataclass(slots=True, kw_only=True)
class Known:
    """One migration. `version` is the picture's when anything of it changed last."""

    name: str
    version: int = 0
    uuid: str = ""
    state: State = State.SETUP
    authority: Side = Side.SOURCE
    attempt: int = 0
    decision: int = -1
    is_flagged: bool = False
    view: HostView | None = None
    view_heard: float = 0.0  # seconds since 1970, by our clock
    status: MigrationStatus | None = None
    status_heard: float = 0.0
    unlisted: UnlistedMigration | None = None  # in place of a status, where the journal does not tell of it
    unlisted_heard: float = 0.0
    faults: list[FaultView] = field(default_factory=list)  # of every attempt, oldest first
    fault_count: int = 0
    history: History | None = None
    series: Series = field(default_factory=Series)

    @property
    def host(self) -> str:
        """Whose it is: by the journal's word, where that is known."""
        if self.unlisted is not None and self.unlisted.host:
            return self.unlisted.host
        if self.status is not None:
            return self.status.host
        return self.view.host if self.view is not None else ""

    @property
    def heard(self) -> float:
        """When anything was last heard of it."""
        return max(self.view_heard, self.status_heard, self.unlisted_heard)

    @property
    def live(self) -> HostView | None:
        """What the host told last, unless something heard later says that the host does not have it open."""
        return None if self.trouble else self.view

    @property
    def trouble(self) -> str:
        """Why the volume is closed, or its host away; empty when it is open."""
        told, heard = (
            (self.status, self.status_heard)
            if self.unlisted is None
            else (self.unlisted, self.unlisted_heard)
        )
        if told is None or told.host_error is None or self.view_heard > heard:
            return ""
        return told.host_error

    @property
    def is_closed(self) -> bool:
        """Whether its host answers, and keeps it closed."""
        told = self.unlisted or self.status
        return bool(self.trouble) and told is not None and told.host_answers

    @property
    def is_open(self) -> bool | None:
        """Whether its host has it open; None where nobody who could tell has."""
        if self.trouble:
            return False if self.is_closed else None
        is_told = self.view is not None or self.status is not None or self.unlisted is not None
        return True if is_told else None

    @property
    def is_state_known(self) -> bool:
        """Whether anybody has told of its state."""
        return self.decision >= 0 or self.status is not None

    @property
    def is_recorded(self) -> bool:
        """Whether the journal has the migration at all."""
        return self.unlisted is None or self.unlisted.journal_condition not in _WITHOUT_RECORDS

    @property
    def journal_condition(self) -> JournalCondition | None:
        """How the journal is to its host; None where the host does not say.

        What state_control finds wrong counts at once, the host's own look only when it comes to it; and the other way round.
        """
        told = self.unlisted or self.status
        if told is not None and told.journal_condition is not JournalCondition.SOUND:
            return told.journal_condition
        return self.live.journal_condition if self.live is not None else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should look at."""
        told, trouble = self.unlisted or self.status, self.application_trouble
        warnings = told.warnings if told is not None else ()
        # The host tells of itself every second, state_control when it is asked: what was told earlier is not shown beside it.
        before = application_trouble(told) if told is not None else ""
        rest = tuple(each for each in warnings if each not in {before, trouble})
        return (trouble, *rest) if trouble else rest

    @property
    def application_trouble(self) -> str:
        """What the application meets now; empty where nothing is known of."""
        if self.view is not None or self.trouble:
            return self.live.application_trouble if self.live is not None else ""
        told = self.unlisted or self.status
        return application_trouble(told) if told is not None else ""

    @property
    def attempt_faults(self) -> list[FaultView]:
        """Those of the current attempt."""
        return [fault for fault in self.faults if fault.attempt == self.attempt]

    def told_view(self, view: HostView, now: float) -> None:
        """The host has told of it."""
        self.view, self.view_heard = view, now
        self.series.add(view)
        if view.decision >= self.decision:
            self.state, self.authority = view.state, view.authority
            self.attempt, self.decision = view.attempt, view.decision
        self._add_faults(view.pending_faults)

    def told_status(self, status: MigrationStatus, now: float) -> None:
        """State control has answered: it has the journal's word, and asked the host."""
        self.uuid = status.uuid
        self.status, self.status_heard = status, now
        self.unlisted = None
        self.state, self.authority, self.attempt = status.state, status.authority, status.attempt
        self.is_flagged = status.error_flag
        self._add_faults(status.faults)

    def told_unlisted(self, unlisted: UnlistedMigration, now: float) -> None:
        """State control has the host's word alone: the journal lacks it, contradicts it, or cannot be read."""
        self.unlisted, self.unlisted_heard = unlisted, now
        if unlisted.view is not None:
            self.told_view(unlisted.view, now)

    def told_record(self, record: AnyRecord) -> None:
        """The journal has a new record."""
        match record:
            case StateRecord() | RepairRecord():
                if record.decision >= self.decision:
                    self.state, self.authority = record.state, record.authority
                    self.attempt, self.decision = max(record.attempt, self.attempt), record.decision
                if isinstance(record, RepairRecord):
                    self.is_flagged = True
            case FlagSetRecord():
                self.is_flagged = True
            case FlagClearRecord():
                self.is_flagged = False
            case _:
                pass

    def told_faults(self, faults: list[FaultView]) -> None:
        """The whole fault log."""
        pending = [fault for fault in self.faults if fault.recorded_at is None]
        self.faults, self.fault_count = faults[-FAULTS_KEPT_MAX:], len(faults)
        self._add_faults(pending)

    def add_fault(self, fault: FaultView) -> None:
        """One fault more, recorded or yet to be."""
        self._add_faults((fault,))

    def _add_faults(self, faults: tuple[FaultView, ...] | list[FaultView]) -> None:
        known = {_fingerprint(fault): at for at, fault in enumerate(self.faults)}
        for fault in faults:
            at = known.get(_fingerprint(fault))
            if at is None:
                known[_fingerprint(fault)] = len(self.faults)
                self.faults.append(fault)
                self.fault_count += 1
            elif self.faults[at].recorded_at is None:
                self.faults[at] = fault
        del self.faults[:-FAULTS_KEPT_MAX]


def _fingerprint(fault: FaultView) -> tuple[object, ...]:
    return (fault.attempt, fault.side, fault.operation, fault.cause, fault.offset, fault.detected_at)
