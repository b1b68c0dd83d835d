"""What the host tells of a migration: for `query`, for monitors, for the progress stream."""

from dataclasses import replace

from services.write_cloning.migration import Migration
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.volume.latency import Latency
from shared.messages.recording import FaultReport
from shared.messages.status import FaultView, HostView, LatencyView, RoutingView
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.states import CLONING_STATES, IN_SYNC_STATES, State, routing_of

_MICROSECONDS = 6  # decimals of a second


def progress_of(migration: Migration, around: Surroundings) -> HostView:
    """One migration, right now, with the picture of its regions: for monitors, who are told of one at a time."""
    witness, apparatus = migration.witness, migration.apparatus
    cells = migration.region_cells.look(
        witness.state or State.SETUP, witness.authority, apparatus.volume.marks, apparatus.copier
    )
    return replace(view_of(migration, around), region_cells=cells)


def view_of(migration: Migration, around: Surroundings) -> HostView:
    """One migration, right now."""
    witness = migration.witness
    state = witness.state or State.SETUP
    volume, copier = migration.apparatus.volume, migration.apparatus.copier
    verification = migration.apparatus.verification
    synced_bytes = _synced_bytes(migration, state)
    remaining_bytes = volume.size_bytes - synced_bytes if state in CLONING_STATES else 0
    is_copying = copier is not None and state is State.SYNCING and not copier.is_stuck
    rate = copier.rate_bytes_per_s() if copier is not None and is_copying else 0.0
    return HostView(
        name=migration.name,
        uuid=witness.uuid,
        host=around.host,
        run=around.run,
        state=state,
        authority=witness.authority,
        attempt=witness.attempt,
        decision=witness.decision,
        doubt=migration.vouching.doubt,
        journal_pending=not migration.reporter.is_settled,
        journal_wait=migration.reporter.waiting,
        size_bytes=volume.size_bytes,
        synced_bytes=synced_bytes,
        remaining_bytes=remaining_bytes,
        rate_bytes_per_s=rate,
        eta_s=remaining_bytes / rate if rate else None,
        paused=witness.paused,
        throttle_bytes_per_s=witness.throttle_bytes_per_s,
        is_entering=migration.entering.is_under_way,
        unreadable_regions=copier.unreadable_regions if copier is not None else (),
        verification=verification.view() if verification is not None else None,
        resync_bytes=migration.apparatus.due_bytes if witness.authority is Side.SOURCE else None,
        full_resync_because=migration.apparatus.maps.full_because or None,
        verified_at=witness.verified_at,
        needs_verify=witness.needs_verify and witness.verified_at is None,
        export_uri=around.exports.uri(migration.name),
        connections=around.exports.connections(migration.name),
        io_engine=_engine(migration),
        outstanding_target_requests=migration.apparatus.left_behind.outstanding,
        routing=_routing(state, witness.authority),
        application_reads=volume.reads,
        application_writes=volume.writes,
        application_read_bytes=volume.read_bytes,
        application_write_bytes=volume.write_bytes,
        application_read_latency=_latency(volume.read_latency),
        application_write_latency=_latency(volume.write_latency),
        application_errors=migration.apparatus.application_errors.view(),
        application_trouble=migration.apparatus.application_trouble,
        pending_faults=tuple(fault_view(migration, fault, around) for fault in migration.unstored_faults),
        tail_digest=witness.tail_digest,
        journal_condition=condition_of_journal(migration),
        warnings=migration.warnings,
        source=witness.devices.source.name,
        target=witness.devices.target.name,
        at=around.clock.now_rfc3339(),
    )


def condition_of_journal(migration: Migration) -> JournalCondition:
    """As it was found last; one that does not take the first record is not called sound."""
    found = migration.journal.condition
    if found is JournalCondition.SOUND and not migration.witness.tail_digest and migration.reporter.trouble:
        return JournalCondition.PENDING
    return found


def _synced_bytes(migration: Migration, state: State) -> int:
    copier = migration.apparatus.copier
    if state is State.SYNCING:
        return copier.synced_bytes if copier is not None else 0
    in_sync = state in IN_SYNC_STATES or state is State.COMMITTED
    return migration.apparatus.volume.size_bytes if in_sync else 0


def _latency(latency: Latency) -> LatencyView | None:
    sampled = latency.sampled()
    if not sampled.samples:
        return None
    mean_s, worst_s = round(sampled.mean_s, _MICROSECONDS), round(sampled.worst_s, _MICROSECONDS)
    return LatencyView(samples=sampled.samples, mean_s=mean_s, worst_s=worst_s)


def _engine(migration: Migration) -> str:
    side = migration.apparatus.volume.sides_by_authority()[0]
    device = migration.apparatus.source if side is Side.SOURCE else migration.apparatus.target
    return device.engine_name


def _routing(state: State, authority: Side) -> RoutingView:
    routing = routing_of(state, authority)
    return RoutingView(
        reads=routing.reads, writes=tuple(sorted(routing.writes)), flushes=tuple(sorted(routing.flushes))
    )


def fault_view(migration: Migration, fault: FaultReport, around: Surroundings) -> FaultView:
    """A fault, as far as its host knows it."""
    return FaultView(
        migration=migration.name,
        attempt=fault.attempt,
        side=fault.side,
        state=fault.state,
        operation=fault.operation,
        cause=fault.cause,
        errno=fault.errno,
        offset=fault.offset,
        length=fault.length,
        host=around.host,
        detected_at=fault.detected_at,
    )
