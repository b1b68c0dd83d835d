"""How a migration is, for people and monitors. Units stand in the names; None means not known or not applicable."""

from dataclasses import dataclass
from enum import StrEnum

from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.records import DevicePair
from shared.migration.states import State

PROGRESS_PREFIX = "cutover.progress."


def progress_subject(migration: str) -> str:
    """Where a host tells of a migration's progress: a `HostView`. The stream keeps the last one."""
    return PROGRESS_PREFIX + migration


UNREADABLE_REGIONS_MAX = 16  # that are told of; where it is so many, there may be more


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultView:
    """One entry of the fault log."""

    migration: str
    attempt: int
    side: Side
    state: State
    operation: str
    cause: str
    errno: int | None = None
    offset: int | None = None
    length: int | None = None
    host: str
    detected_at: str
    recorded_at: str | None = None  # None while the journal does not hold it yet


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionView:
    """One client of a volume."""

    peer: str
    connected_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingView:
    """Where application I/O goes right now."""

    reads: Side
    writes: tuple[Side, ...]
    flushes: tuple[Side, ...]


class Outcome(StrEnum):
    """How a comparison of both sides ended."""

    EQUAL = "equal"  # everywhere; the host's witness holds that
    DIFFERENT = "different"  # a target fault tells where first
    INCOMPLETE = "incomplete"  # the detail says why


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationView:
    """A comparison of both sides by `verify`: one that is under way, or the last one of this run of the host."""

    id: str  # the operation id of the command that began it
    outcome: Outcome | None  # None while it is under way
    detail: str = ""
    compared_bytes: int
    remaining_bytes: int
    rate_bytes_per_s: float
    eta_s: float | None
    began_at: str  # RFC 3339, UTC
    ended_at: str | None


class RegionCell(StrEnum):
    """A letter of `region_cells`: the worst that a share of the volume holds, in the order in which they come first."""

    UNREADABLE = "u"  # the source could not be read there
    COPYING = "c"  # is being copied now
    DIFFERING = "x"  # the sides are not known to hold the same
    DIRTY = "d"  # written on both sides lately; a sync after a crash would copy it again
    IN_SYNC = "s"  # both sides hold the same


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyView:
    """How long some of the application's requests took, over the last second or so."""

    samples: int
    mean_s: float
    worst_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestErrorView:
    """A request of the application that was answered with a device's error."""

    side: Side  # whose device it was
    operation: str  # read, write, zero, trim, flush, cache, or block-status
    cause: str  # the name of the errno
    errno: int | None = None
    offset: int | None = None  # None of a flush
    length: int | None = None
    at: str  # RFC 3339, UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationErrorsView:
    """How often the application was answered with a device's error since the volume was opened; the first and the last time."""

    of_source: int  # requests that the source failed
    of_target: int
    first: RequestErrorView
    last: RequestErrorView


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalWait:
    """What a host has to tell the journal and has not been able to."""

    what: str  # in words
    why: str  # what the last attempt met; empty while there was none that failed
    since: str  # RFC 3339, UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """One migration as its host sees it, right now. Also the payload of `cutover.progress.MIGRATION`."""

    name: str
    uuid: str
    host: str
    run: int
    state: State
    authority: Side
    attempt: int
    decision: int
    doubt: str | None = None  # what a word about old connections would be given for, now
    journal_pending: bool  # a decision, a fault or a clear of the flag that the journal does not hold yet
    journal_wait: JournalWait | None = None  # the same in words
    size_bytes: int
    synced_bytes: int
    remaining_bytes: int
    rate_bytes_per_s: float
    eta_s: float | None
    paused: bool
    throttle_bytes_per_s: int | None
    unreadable_regions: tuple[
        int, ...
    ] = ()  # of the source, by number; at most the first 16, and then there may be more
    verification: VerificationView | None = None
    # What a sync copies if writes stop being cloned now; None once the target has taken over.
    resync_bytes: int | None = None
    full_resync_because: str | None = None  # why that is everything; None where the region map narrows it
    verified_at: str | None = None  # when both sides were last found equal everywhere, in this attempt
    needs_verify: bool = False  # whether `commit` asks for that
    export_uri: str | None
    connections: tuple[ConnectionView, ...] = ()
    io_engine: str
    is_entering: bool = False  # a sync is under way that has looked at the flag
    outstanding_target_requests: int = 0
    routing: RoutingView
    application_reads: int = 0  # since the volume was opened
    application_writes: int = 0
    application_read_bytes: int = 0
    application_write_bytes: int = 0
    # Of a sample of the requests that a device was asked for; None where there were none.
    application_read_latency: LatencyView | None = None
    application_write_latency: LatencyView | None = None
    application_errors: ApplicationErrorsView | None = None  # None: there was none
    # What the application meets now, in words: errors of the last hour, or a device whose connection is broken; empty: nothing.
    application_trouble: str = ""
    # A picture of the volume in at most 256 equal shares, a `RegionCell` each; empty once the target has taken over, and in
    # answers that tell of many migrations at once: progress has it.
    region_cells: str = ""
    pending_faults: tuple[FaultView, ...] = ()
    tail_digest: str = ""  # of the last journal record that the host relied on
    journal_condition: JournalCondition | None = None  # as the host last found it; None: it does not say
    warnings: tuple[str, ...] = ()  # what an operator should look at now
    source: str = ""
    target: str = ""
    at: str  # RFC 3339, UTC


class StatusSource(StrEnum):
    """Who tells how a migration is."""

    JOURNAL = "journal"  # and the host, where it answers
    HOST = "host"  # alone: NATS is away


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrecordedDecision:
    """A decision of the host that the journal does not hold yet."""

    decision: int
    trigger: str
    state: State | None  # None: it is being removed


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrecorded:
    """What the host has to tell the journal once it can, in this order."""

    faults: tuple[FaultView, ...] = ()
    decisions: tuple[UnrecordedDecision, ...] = ()
    flag_clear: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStatus:
    """The answer to `query`: what the journal records, joined with what the host says. Flat, for scripts.

    Where the host tells it alone, flag and faults are what its witness holds, and when a fault was recorded is not known.
    """

    name: str
    uuid: str
    state: State
    attempt: int
    error_flag: bool
    authority: Side
    faults: tuple[FaultView, ...]
    size_bytes: int
    synced_bytes: int | None
    remaining_bytes: int | None
    synced_percent: float | None
    rate_bytes_per_s: float | None
    eta_s: float | None
    paused: bool | None
    throttle_bytes_per_s: int | None
    host: str
    host_answers: bool
    host_error: str | None = None  # why the host has the volume closed, or does not answer
    source: str
    target: str
    devices: DevicePair
    export_uri: str | None
    connections: tuple[ConnectionView, ...]
    io_engine: str | None
    routing: RoutingView | None
    journal_pending: bool | None
    journal_wait: JournalWait | None = None
    unreadable_regions: tuple[int, ...] = ()
    verification: VerificationView | None = None
    # What a sync copies if writes stop being cloned now; None once the target has taken over.
    resync_bytes: int | None = None
    full_resync_because: str | None = None  # why that is everything; None where the region map narrows it
    verified_at: str | None = None
    needs_verify: bool | None = None
    application_errors: ApplicationErrorsView | None = (
        None  # since the volume was opened; None: none is known of
    )
    application_trouble: str = ""  # what the application meets now, in words; it is among the warnings, too
    allowed: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    doubt: str | None = None  # what a `vouch` would be given for, now; for the request
    as_of: (
        # RFC 3339, UTC: when the host's part was true; the journal's part is of the time of the answer. Where the host does not
        # answer, the time of the journal's last record: what came after is not known.
        str
    )
    source_of_status: StatusSource = StatusSource.JOURNAL
    # Both are told by the host alone, and None where the journal tells.
    nats_lost_at: str | None = None
    unrecorded: Unrecorded | None = None
    journal_condition: JournalCondition = JournalCondition.SOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlistedMigration:
    """A migration of which the journal tells nothing that could be believed, as its host tells of it.

    The fields are those of `MigrationStatus`, as far as anybody knows them; `view` has the rest where the volume is open.
    """

    name: str
    uuid: str | None
    journal_condition: JournalCondition
    state: State | None
    attempt: int | None
    authority: Side | None
    host: str  # empty where no host that answers has it
    host_answers: bool
    host_error: str | None  # why the volume is closed, or nobody answers for it
    source: str
    target: str
    export_uri: str | None
    allowed: tuple[str, ...] = ()  # whatever it was, its host would refuse it
    warnings: tuple[str, ...]
    view: HostView | None
    as_of: str
    source_of_status: StatusSource = StatusSource.HOST


Listed = MigrationStatus | UnlistedMigration


def application_trouble(told: Listed) -> str:
    """What the application meets now on a volume that is open, whoever tells of it; empty where nothing is known of."""
    if isinstance(told, MigrationStatus):
        return told.application_trouble
    return told.view.application_trouble if told.view is not None else ""
