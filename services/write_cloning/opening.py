"""Opens a migration on this host: one that startup has admitted, or one that is set up.

Its devices first, then its map, then the witness on disk: nothing is open that the next start would not find. Who is refused
leaves nothing open behind. That it belongs to the host, and begins, is the host's business.
"""

import contextlib
import logging
from dataclasses import dataclass, replace

from services.write_cloning.devices.absent import AbsentDevice
from services.write_cloning.devices.interface import Device
from services.write_cloning.fences import (
    refuse_in_doubt,
    sides_in_doubt,
    unfenced_sides,
    unfenced_when_admitted,
)
from services.write_cloning.last_changes import changed_side
from services.write_cloning.map_keeper import MapKeeper
from services.write_cloning.map_takeover import NOTHING_COPIED, taken_over
from services.write_cloning.migration import Migration
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.witness import Witness
from shared.logs.about import about
from shared.messages.admission import Admission
from shared.messages.host import HostSetupRequest
from shared.migration.devices import Side
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, Refusal
from shared.migration.states import CLONING_STATES, State
from shared.migration.table import Trigger

log = logging.getLogger(__name__)

_MISTAKES = frozenset({Code.DEVICE_CHANGED, Code.DEVICE_NOT_ALLOWED})  # of the operator, not of the device


@dataclass(frozen=True, slots=True)
class Opened:
    """A migration whose devices are open and whose witness is on disk. Its volume is closed until it begins."""

    migration: Migration
    target_missing: str = ""  # why the target is not open, where the state needs it, or cannot be what it was


# ------------------------------------------------------------------------ what startup has admitted


async def open_admitted(
    admission: Admission, earlier: Witness | None, around: Surroundings, *, is_vouched_for: bool
) -> Opened:
    """Open what startup has admitted; `earlier` is the witness that an earlier run has left under its name.

    Raises:
        Refusal: it stays closed, and why: `outstanding-requests` until an operator vouches.
    """
    if earlier is not None and (earlier.uuid != admission.uuid or not admission.is_witness_believed):
        earlier = (
            None  # an operator's word stands in its place: what it says of map and fences is from before
        )
    if why := await why_over(admission.migration, admission.uuid, around):
        raise Refusal(Code.NOT_ADMITTED, why)
    in_doubt = () if is_vouched_for else sides_in_doubt(admission.devices, earlier)
    refuse_in_doubt(admission, in_doubt)
    changed = None
    if admission.authority is Side.SOURCE:
        changed = await changed_side(admission.devices, earlier, around.opener)
    source, target, target_missing = await _open_devices(admission, around)
    maps = await taken_over(
        admission,
        earlier,
        files=around.maps,
        region_size_bytes=around.limits.region_size_bytes,
        run=around.run,
        changed=changed,
        is_target_open=not isinstance(target, AbsentDevice),
    )
    witness = _admitted_witness(admission, earlier, maps, around)
    witness = replace(witness, unfenced=unfenced_when_admitted(admission, in_doubt))
    try:
        await _write(witness, around)
    except OSError as error:
        await maps.release()
        await source.close()
        await target.close()
        message = f"its witness could not be written: {error.strerror or error}"
        raise Refusal(Code.INTERNAL, message) from error
    await maps.tidy()
    migration = Migration(witness=witness, source=source, target=target, maps=maps, around=around)
    if changed is not None and admission.state is not State.SETUP:
        target_missing = target_missing or f"{changed}-changed"
    return Opened(migration, target_missing)


async def why_over(name: str, uuid: str | None, around: Surroundings) -> str:
    """Why nothing is opened for a migration that this host has cleaned up, whatever the journal holds; empty if it has not.

    Raises:
        Refusal: (`busy`) it cannot be known.
    """
    if uuid is None:
        return ""
    try:
        is_removed = await around.witnesses.openings.is_removed(uuid)
    except OSError as error:
        message = f"It cannot be known whether {name} was cleaned up on this host: {error.strerror or error}."
        raise Refusal(Code.BUSY, message) from error
    if not is_removed:
        return ""
    return (
        "it was cleaned up on this host, and the journal is older than that. Bring the newer journal back, or say "
        f"`cutover recover {name} --give-up`."
    )


async def _open_devices(admission: Admission, around: Surroundings) -> tuple[Device, Device, str]:
    """Open both sides, or the authority alone, and tell why a target that the state needs is not open.

    In `setup` the target is opened if it can be, so that it is locked. In a cloning state a target that is gone or broken has
    failed, as it may do at any other time. One that is another device, or that this host may not open, is somebody's
    mistake, to be cleared up before anything is used.
    """
    try:
        return await _sides(admission, around)
    except Refusal as refusal:
        message = (
            f"{refusal.message} Then restart the write cloning service of host {around.host}, or say "
            f"`cutover recover {admission.migration} --try-again`."
        )
        raise Refusal(refusal.code, message) from refusal


async def _sides(admission: Admission, around: Surroundings) -> tuple[Device, Device, str]:
    devices, opener = admission.devices, around.opener
    if admission.authority is Side.TARGET:
        target = await opener.open_recorded(devices.target, is_target=True)
        return AbsentDevice(devices.source), target, ""
    source = await opener.open_recorded(devices.source, is_target=False)
    try:
        return source, await opener.open_recorded(devices.target, is_target=True), ""
    except Refusal as refusal:
        if admission.state is not State.SETUP and refusal.code in _MISTAKES:
            await source.close()
            raise
        log.warning(
            "the target is not open: %s",
            refusal.message,
            extra=about(admission.migration, admission.attempt),
        )
        missing = "" if admission.state is State.SETUP else str(refusal.code)
        return source, AbsentDevice(devices.target, opener.alignment_bytes(devices.target)), missing


def _ends_attempt(earlier: Witness, admission: Admission) -> bool:
    return earlier.state in CLONING_STATES and admission.state is State.SETUP


def _admitted_witness(
    admission: Admission, earlier: Witness | None, maps: MapKeeper, around: Surroundings
) -> Witness:
    is_same_attempt = earlier is not None and earlier.attempt == admission.attempt
    is_going_on = is_same_attempt and admission.state is not State.SETUP
    return Witness(
        migration=admission.migration,
        uuid=admission.uuid,
        host=around.host,
        run=around.run,
        state=admission.state,
        authority=admission.authority,
        attempt=admission.attempt,
        decision=admission.decision,
        operation_id=f"{admission.uuid}:admitted:{around.run}",
        trigger=admission.label,
        detail=admission.reason,
        tail_digest=admission.tail_digest,
        flag_digest=admission.flag_digest,
        spent_flag_digest=earlier.spent_flag_digest if earlier is not None else "",
        faults=earlier.faults if earlier is not None and is_same_attempt else (),
        devices=admission.devices,
        region_map=maps.map_id,
        full_because=maps.full_because,
        paused=earlier is not None and earlier.paused and not _ends_attempt(earlier, admission),
        throttle_bytes_per_s=earlier.throttle_bytes_per_s if earlier is not None else None,
        needs_verify=earlier.needs_verify if earlier is not None and is_going_on else False,
        verified_at=earlier.verified_at if earlier is not None and is_going_on else None,
    )


# ------------------------------------------------------------------------ what is set up


async def open_new(name: str, request: HostSetupRequest, trigger: Trigger, around: Surroundings) -> Opened:
    """Open and check two devices, and begin a migration in `setup` with a witness of its own.

    Raises:
        Refusal: something is wrong with a device; `internal` where the witness could not be written.
    """
    source, target, devices = await around.opener.open_pair(
        request.source, request.target, overwrite_target=request.overwrite_target
    )
    witness = _first_witness(name, request, devices, trigger, around)
    try:
        await _write(witness, around)
    except OSError as error:
        await source.close()
        await target.close()
        with contextlib.suppress(OSError):  # it may be there all the same; then the next start finds it
            await around.witnesses.discard(name)
        raise Refusal(Code.INTERNAL, f"The witness of {name} could not be written: {error}.") from error
    region_count = -(-devices.source.size_bytes // around.limits.region_size_bytes)
    maps = MapKeeper(name, region_count, around.maps, full_because=NOTHING_COPIED)
    return Opened(Migration(witness=witness, source=source, target=target, maps=maps, around=around))


def _first_witness(
    name: str, request: HostSetupRequest, devices: DevicePair, trigger: Trigger, around: Surroundings
) -> Witness:
    return Witness(
        migration=name,
        uuid=request.uuid,
        host=around.host,
        run=around.run,
        state=State.SETUP,
        decision=1,
        operation_id=request.operation_id,
        trigger=trigger,
        devices=devices,
        unfenced=unfenced_sides(devices, State.SETUP, Side.SOURCE),
    )


async def _write(witness: Witness, around: Surroundings) -> None:
    await around.witnesses.write(witness)
    await around.witnesses.openings.note(witness.uuid, witness.run)
