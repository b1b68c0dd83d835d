"""How a migration is told to people and monitors: a picture of it as the flat object that `query` answers."""

from collections.abc import Iterable, Sequence

from services.state_control.picture import Picture
from shared.messages.standing import gone_back, later_run
from shared.messages.status import FaultView, MigrationStatus
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.records import FaultRecord
from shared.migration.refusals import InvariantError
from shared.migration.states import Flag
from shared.migration.table import Trigger, allowed_commands

_WHOLE_PERCENT = 100.0


def status_of(picture: Picture, *, warnings: Sequence[str], now: str) -> MigrationStatus:
    """The answer to `query`."""
    ledger, view = picture.ledger, picture.view
    devices, state = ledger.devices, picture.state
    if devices is None or state is None or ledger.uuid is None:
        raise InvariantError(f"{ledger.migration!r} exists without state or devices")
    return MigrationStatus(
        name=ledger.migration,
        uuid=ledger.uuid,
        state=state,
        attempt=picture.attempt,
        error_flag=ledger.flag is Flag.SET,
        authority=picture.authority,
        faults=_faults(picture),
        size_bytes=devices.source.size_bytes,
        synced_bytes=view.synced_bytes if view else None,
        remaining_bytes=view.remaining_bytes if view else None,
        synced_percent=_percent(view.synced_bytes, view.size_bytes) if view else None,
        rate_bytes_per_s=view.rate_bytes_per_s if view else None,
        eta_s=view.eta_s if view else None,
        paused=view.paused if view else None,
        throttle_bytes_per_s=view.throttle_bytes_per_s if view else None,
        host=ledger.host,
        host_answers=picture.host_error is None,
        host_error=_host_error(picture),
        source=devices.source.name,
        target=devices.target.name,
        devices=devices,
        export_uri=view.export_uri if view else None,
        connections=view.connections if view else (),
        io_engine=view.io_engine if view else None,
        routing=view.routing if view else None,
        journal_pending=not picture.is_recorded if view else None,
        journal_wait=view.journal_wait if view else None,
        unreadable_regions=view.unreadable_regions if view else (),
        verification=view.verification if view else None,
        resync_bytes=view.resync_bytes if view else None,
        full_resync_because=view.full_resync_because if view else None,
        verified_at=view.verified_at if view else None,
        needs_verify=view.needs_verify if view else None,
        application_errors=view.application_errors if view else None,
        application_trouble=view.application_trouble if view else "",
        allowed=_allowed(picture),
        warnings=_once(*_damage(picture), *warnings, *picture.host_warnings),
        doubt=picture.doubt,
        as_of=view.at if view else _last_heard_at(picture, now),
        journal_condition=picture.journal_condition,
    )


def _allowed(picture: Picture) -> tuple[str, ...]:
    """What the table allows and the host can carry out; nothing where it does not have it open, or does not answer."""
    if picture.view is None:
        return ()
    if picture.journal_condition is not JournalCondition.SOUND:  # the host refuses all but the way out
        return tuple(each for each in allowed_commands(picture.facts) if each == Trigger.ABORT)
    kept_from = set()
    if picture.view.outstanding_target_requests:
        kept_from.add(Trigger.SYNC)
        devices = picture.ledger.devices
        if devices is not None and Side.TARGET in devices.remote_sides:
            kept_from.add(Trigger.CLEANUP)  # of a local device the kernel keeps the lock
    return tuple(each for each in allowed_commands(picture.facts) if each not in kept_from)


def _last_heard_at(picture: Picture, now: str) -> str:
    """How old it is what is known of a host that does not answer: as old as the journal's last record."""
    entries = picture.ledger.entries
    return entries[-1].record.recorded_at if picture.host_error is not None and entries else now


def fault_views(faults: Iterable[FaultRecord]) -> tuple[FaultView, ...]:
    """Records of faults, as they are shown."""
    return tuple(
        FaultView(
            migration=fault.migration,
            attempt=fault.attempt,
            side=fault.side,
            state=fault.state,
            operation=fault.operation,
            cause=fault.cause,
            errno=fault.errno,
            offset=fault.offset,
            length=fault.length,
            host=fault.host,
            detected_at=fault.detected_at,
            recorded_at=fault.recorded_at,
        )
        for fault in faults
    )


def _faults(picture: Picture) -> tuple[FaultView, ...]:
    recorded = fault_views(picture.faults())
    pending = picture.view.pending_faults if picture.view else ()
    known = {_fingerprint(fault) for fault in recorded}  # the host may not know yet that one was recorded
    return (*recorded, *(fault for fault in pending if _fingerprint(fault) not in known))


def _fingerprint(fault: FaultView) -> tuple[object, ...]:
    return (fault.attempt, fault.side, fault.operation, fault.cause, fault.offset, fault.detected_at)


def _percent(synced_bytes: int, size_bytes: int) -> float:
    return _WHOLE_PERCENT * synced_bytes / size_bytes if size_bytes else _WHOLE_PERCENT


def _host_error(picture: Picture) -> str | None:
    if picture.host_error is not None:
        return picture.host_error
    if picture.closed is not None:
        return picture.closed.message
    return None if picture.view is not None else "The host does not have it open."


def _once(*warnings: str) -> tuple[str, ...]:
    """Each, in their order: of a journal that has gone back the host tells as we do."""
    return tuple(dict.fromkeys(warnings))


def _damage(picture: Picture) -> tuple[str, ...]:
    ledger, view = picture.ledger, picture.view
    if ledger.broken is not None:
        return (f"The journal is damaged: {ledger.broken}. Restarting the host has it repaired.",)
    if view is not None and picture.is_of_earlier_run:
        return (later_run(ledger.migration, ledger.host, view.run, ledger.run),)
    if picture.has_gone_back:
        return (gone_back(ledger.migration, f"host {ledger.host!r}").message,)
    return ()
