"""Many writes, for a device that gains nothing from having them all at once."""

from collections.abc import Callable, Sequence

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.errors import EngineMisuseError
from services.write_cloning.devices.interface import Done, Write


def write_one_by_one(
    start_one: Callable[[int, Buffer, int, int, Done, object], None], writes: Sequence[Write], done: Done
) -> None:
    """Start each, in this order; `start_one` is the device's `write`."""
    for write in writes:
        if write.buffer is None:
            raise EngineMisuseError("a write came without its bytes")
        start_one(write.offset, write.buffer, write.start, write.length, done, write)
