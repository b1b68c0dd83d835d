"""Whether somebody has written to the files of a migration while its host was stopped, when no lock kept anybody away.

The kernel notes when a file was written to last (mtime); a reboot, another name or another owner leave that alone. Who sets the
time back is not found out, but a copy that keeps it is of the same time. Of block devices and remote exports nothing tells.
"""

from collections.abc import Collection

from services.write_cloning.surroundings import DeviceOpener
from services.write_cloning.witness import Witness
from shared.migration.devices import Side
from shared.migration.records import DevicePair

NO_FILE_NS = 0
UNKNOWN_NS = 1  # no file is from then

UNKNOWN = (UNKNOWN_NS, UNKNOWN_NS)
"""From when a stop is recorded as clean until the devices are closed: a copy that was given up may still land."""


async def last_changes(
    devices: DevicePair, opener: DeviceOpener, *, open_sides: Collection[Side] = tuple(Side)
) -> tuple[int, ...]:
    """When both sides were last changed, for the witness: nobody may have them open any more.

    Of a side that was not among the `open_sides` it is not known what the host would have left there: others may have had it.
    """
    return tuple(
        [await opener.written_ns(devices.of(side)) if side in open_sides else UNKNOWN_NS for side in Side]
    )


async def changed_side(devices: DevicePair, earlier: Witness | None, opener: DeviceOpener) -> Side | None:
    """A side that is not known to be as its host had left it; none where it has left no word of that. Before they are opened."""
    if earlier is None or not earlier.last_changes:
        return None
    now = await last_changes(devices, opener)
    for side, then_ns, now_ns in zip(Side, earlier.last_changes, now, strict=True):
        if then_ns != now_ns or then_ns == UNKNOWN_NS:
            return side
    return None
