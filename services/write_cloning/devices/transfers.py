"""Device requests that can be awaited, for the jobs beside the data path: the copier, flushes, a repair.

A buffer stays pinned until its device lets go of it, whether or not anyone still waits.
"""

import asyncio
from collections.abc import Callable

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.interface import Device, Done, ZeroMode


async def read(device: Device, offset: int, buffer: Buffer, length: int, *, start: int = 0) -> int:
    """Read into the buffer from its byte `start` on; returns 0 or an errno."""
    return await _asked(buffer, lambda done: device.read(offset, buffer, start, length, done, None))


async def write(device: Device, offset: int, buffer: Buffer, start: int, length: int) -> int:
    """Write from byte `start` of the buffer; returns 0 or an errno. Not durable before a flush."""
    return await _asked(buffer, lambda done: device.write(offset, buffer, start, length, done, None))


async def zero(device: Device, offset: int, length: int, mode: ZeroMode) -> int:
    """Make a range read as zeroes; returns 0 or an errno. Not durable before a flush."""
    return await _asked(None, lambda done: device.zero(offset, length, mode, False, done, None))


async def flush(device: Device) -> int:
    """Make what was written durable; returns 0 or an errno, which is final."""
    return await _asked(None, lambda done: device.flush(done, None))


async def _asked(buffer: Buffer | None, ask: Callable[[Done], None]) -> int:
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(_context: object, error: int) -> None:
        if buffer is not None:
            buffer.release()
        if not answered.done():
            answered.set_result(error)

    if buffer is not None:
        buffer.retain()
    ask(done)
    return await answered
