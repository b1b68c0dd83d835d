"""Making both sides equal again where the source failed a write that the target has done."""

from collections.abc import Callable

from services.write_cloning.devices import transfers
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.interface import Device
from services.write_cloning.volume.room import take

PIECE_BYTES = 1 << 20


async def copy_again(
    source: Device,
    target: Device,
    low: int,
    high: int,
    pool: BufferPool,
    *,
    is_wanted: Callable[[], bool],
    flush_failed: Callable[[int], None],
) -> int:
    """Copy a range that is excluded from other writes; returns 0 or the errno of whichever side failed.

    What was read is written only once a flush of the source has proved it: the source may have lost an older write to the
    range that the target still has. `flush_failed` is told where it has not.

    Touches neither device any more once it is not wanted: the target may be closed by then, and in use for something else.
    """
    buffer = await take(pool, min(PIECE_BYTES, high - low))
    try:
        for offset in range(low, high, PIECE_BYTES):
            length = min(PIECE_BYTES, high - offset)
            if not is_wanted():
                return 0
            error = await transfers.read(source, offset, buffer, length)
            if not is_wanted():
                return 0
            if not error and (error := await transfers.flush(source)):
                flush_failed(error)
            if not is_wanted():
                return 0
            error = error or await transfers.write(target, offset, buffer, 0, length)
            if error:
                return error
    finally:
        if (
            buffer.references > 1
        ):  # a device still has it, for which nobody waits any more; other repairs want for memory
            buffer.leave_pool()
        buffer.release()
    return 0
