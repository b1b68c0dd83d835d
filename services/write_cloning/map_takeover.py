"""What becomes of a region map when its host starts again: taken over, or every region may differ, and why.

A map narrows the next resync only where the last attempt ended by an unclean stop and nothing else. Everything that is in
doubt means that all is copied; nothing here can keep a volume closed.
"""

import logging

from services.write_cloning.map_files import MapFiles
from services.write_cloning.map_keeper import TURNED_OFF, MapKeeper
from services.write_cloning.region_map import (
    Expected,
    Header,
    UntrustedMapError,
    identity_text,
    trusted_bits,
)
from services.write_cloning.witness import Witness
from shared.logs.about import about
from shared.messages.admission import Admission
from shared.migration.devices import Side
from shared.migration.states import CLONING_STATES, IN_SYNC_STATES, State

log = logging.getLogger(__name__)

NOTHING_COPIED = "nothing has been copied yet"
CHANGED = "was changed while its host was stopped"
NOT_OPEN = "the target could not be opened when its host started, so others may have written to it"
OVER = "the target has taken over"


async def taken_over(
    admission: Admission,
    earlier: Witness | None,
    *,
    files: MapFiles | None,
    region_size_bytes: int,
    run: int,
    changed: Side | None = None,
    is_target_open: bool = True,
) -> MapKeeper:
    """The map that an admitted migration goes on with, durable before anything is written in this run.

    `changed` is a side that somebody else may have written to since the map was saved. They may have written to a target
    that is not open, too, or will: nothing keeps them away, and its own fault may be that they have it.
    """
    region_count = -(-admission.devices.source.size_bytes // region_size_bytes)
    keeper = MapKeeper(admission.migration, region_count, files)
    if files is None:
        return keeper
    bits = None
    because = why_full(admission, earlier) or _why_changed(changed, is_target_open=is_target_open)
    if earlier is not None and not because:
        try:
            bits = await _read(earlier, admission, files, region_size_bytes)
        except UntrustedMapError as error:
            because = f"the region map is not trusted: {error}"
            log.warning(
                "a full copy is needed: %s", because, extra=about(admission.migration, admission.attempt)
            )
    keeper.full_because = because
    is_cloning = admission.state in CLONING_STATES and admission.authority is Side.SOURCE
    if bits is not None or is_cloning:
        header = header_of(admission, earlier, region_size_bytes=region_size_bytes, run=run)
        # In the states that are in sync a clean stop has proved that all is; the marks only have to grow clean again.
        is_copied = changed is None and is_target_open and admission.state in IN_SYNC_STATES
        await keeper.begin(header, bits, all_due=not is_copied)
    return keeper


def why_full(admission: Admission, earlier: Witness | None) -> str:
    """Why the map of the last run says nothing about the next resync, or nothing if it may."""
    if admission.authority is Side.TARGET:
        return OVER
    if earlier is None:
        return "the host's witness was lost, or an operator's word stands in its place, and so for the region map"
    if earlier.full_because == TURNED_OFF:
        return "the region map was turned off in the last run (host.region_map)"
    if not earlier.region_map:
        return earlier.full_because or NOTHING_COPIED
    if admission.attempt != earlier.attempt:
        return f"the region map is of attempt {earlier.attempt}"
    stopped_cloning = earlier.state in CLONING_STATES and admission.state is State.SETUP
    had_faults = bool(earlier.faults or admission.source_faults or admission.target_faults)
    if stopped_cloning and had_faults:
        return "a device failed in the last attempt"
    return ""


def header_of(admission: Admission, earlier: Witness | None, *, region_size_bytes: int, run: int) -> Header:
    """The header of the map of a run that begins."""
    return Header(
        map_id=f"{run}-{admission.attempt}",
        uuid=admission.uuid,
        run=run,
        attempt=admission.attempt,
        flag_digest=admission.flag_digest or (_last_flag(earlier) if earlier is not None else ""),
        size_bytes=admission.devices.source.size_bytes,
        region_size_bytes=region_size_bytes,
        source=identity_text(admission.devices.source),
        target=identity_text(admission.devices.target),
    )


def header_of_attempt(
    witness: Witness, *, attempt: int, flag_digest: str, region_size_bytes: int, run: int
) -> Header:
    """The header of the map of an attempt that begins, and copies everything."""
    return Header(
        map_id=f"{run}-{attempt}",
        uuid=witness.uuid,
        run=run,
        attempt=attempt,
        flag_digest=flag_digest,
        size_bytes=witness.devices.source.size_bytes,
        region_size_bytes=region_size_bytes,
        source=identity_text(witness.devices.source),
        target=identity_text(witness.devices.target),
    )


def _why_changed(changed: Side | None, *, is_target_open: bool) -> str:
    if changed is not None:
        return f"the {changed} {CHANGED}"
    return "" if is_target_open else NOT_OPEN


async def _read(earlier: Witness, admission: Admission, files: MapFiles, region_size_bytes: int) -> bytearray:
    try:
        content = await files.read(f"{earlier.migration}.{earlier.region_map}")
    except OSError as error:
        raise UntrustedMapError(f"it cannot be read ({error.strerror or error})") from error
    if content is None:
        raise UntrustedMapError("it is missing")
    is_setup = earlier.state is State.SETUP
    expected = Expected(
        map_id=earlier.region_map,
        uuid=earlier.uuid,
        # An attempt that was prepared and did not come about has left its number and its flag in the header.
        attempts=frozenset({earlier.attempt, earlier.attempt + 1} if is_setup else {earlier.attempt}),
        flag_digests=None if is_setup else frozenset({earlier.flag_digest, earlier.spent_flag_digest}),
        size_bytes=admission.devices.source.size_bytes,
        region_size_bytes=region_size_bytes,
        source=identity_text(admission.devices.source),
        target=identity_text(admission.devices.target),
    )
    return trusted_bits(content, expected)


def _last_flag(witness: Witness) -> str:
    return witness.flag_digest or witness.spent_flag_digest
