"""Making both sides equal again where the source failed a write that the target has done."""

import errno

from services.write_cloning.devices import transfers
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.interface import Device

PIECE_BYTES = 1 << 20


async def copy_again(source: Device, target: Device, low: int, high: int, pool: BufferPool) -> int:
    """Copy a range that is excluded from other writes; returns 0 or the errno of whichever side failed."""
    buffer = pool.try_take(PIECE_BYTES)
    if buffer is None:
        return errno.ENOMEM  # not repaired: the target is not in sync
    try:
        for offset in range(low, high, PIECE_BYTES):
            length = min(PIECE_BYTES, high - offset)
            error = await transfers.read(source, offset, buffer, length)
            error = error or await transfers.write(target, offset, buffer, 0, length)
            if error:
                return error
    finally:
        buffer.release()
    return 0
