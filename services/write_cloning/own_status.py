"""A migration as `query` tells it, by what its host knows alone: its witness, its devices, and what it has yet to record.

The journal is not asked: this is for when nobody can ask it.
"""

from services.write_cloning.migration import Migration
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.views import condition_of_journal, fault_view, view_of
from shared.messages.status import FaultView, MigrationStatus, StatusSource, Unrecorded, UnrecordedDecision

_WHOLE_PERCENT = 100.0


def own_status_of(migration: Migration, around: Surroundings) -> MigrationStatus:
    """One migration, right now."""
    view, devices = view_of(migration, around), migration.witness.devices
    synced = view.synced_bytes / view.size_bytes if view.size_bytes else 1.0
    return MigrationStatus(
        name=view.name,
        uuid=view.uuid,
        state=view.state,
        attempt=view.attempt,
        error_flag=_has_flag(migration),
        authority=view.authority,
        faults=_faults(migration, around),
        size_bytes=view.size_bytes,
        synced_bytes=view.synced_bytes,
        remaining_bytes=view.remaining_bytes,
        synced_percent=_WHOLE_PERCENT * synced,
        rate_bytes_per_s=view.rate_bytes_per_s,
        eta_s=view.eta_s,
        paused=view.paused,
        throttle_bytes_per_s=view.throttle_bytes_per_s,
        host=view.host,
        host_answers=True,
        source=devices.source.name,
        target=devices.target.name,
        devices=devices,
        export_uri=view.export_uri,
        connections=view.connections,
        io_engine=view.io_engine,
        routing=view.routing,
        journal_pending=view.journal_pending,
        journal_wait=view.journal_wait,
        unreadable_regions=view.unreadable_regions,
        verification=view.verification,
        resync_bytes=view.resync_bytes,
        full_resync_because=view.full_resync_because,
        verified_at=view.verified_at,
        needs_verify=view.needs_verify,
        application_errors=view.application_errors,
        application_trouble=view.application_trouble,
        allowed=(),  # commands go by NATS
        warnings=migration.warnings,
        as_of=view.at,
        source_of_status=StatusSource.HOST,
        unrecorded=Unrecorded(
            faults=view.pending_faults,
            decisions=_decisions(migration),
            flag_clear=migration.reporter.owes_clear,
        ),
        journal_condition=condition_of_journal(migration),
    )


def _has_flag(migration: Migration) -> bool:
    """Whether it is set, as far as the witness knows; one whose clear is not known to be stored may still be."""
    return bool(migration.witness.flag_digest) or migration.reporter.owes_clear


def _faults(migration: Migration, around: Surroundings) -> tuple[FaultView, ...]:
    """All of the attempt: those in the witness, and those on their way into it."""
    known = {fault.operation_id: fault for fault in (*migration.witness.faults, *migration.unstored_faults)}
    return tuple(fault_view(migration, fault, around) for fault in known.values())


def _decisions(migration: Migration) -> tuple[UnrecordedDecision, ...]:
    return tuple(
        UnrecordedDecision(decision=each.origin.decision, trigger=each.trigger, state=each.state)
        for each in migration.reporter.unstored_decisions
    )
