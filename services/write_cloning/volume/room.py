"""Buffers from a pool that may be exhausted: whoever needs one waits its turn, and is never refused for want of memory.

To be free of deadlocks, nobody who holds a buffer waits for a place in the order of writes; the other way round is fine.
"""

import asyncio
from collections.abc import Callable

from services.write_cloning.devices.buffers import Buffer, BufferPool


def with_room(pool: BufferPool, length: int, use: Callable[[Buffer], None]) -> None:
    """Hand a buffer to `use`: at once, or when there is room."""
    buffer = pool.try_take(length)
    if buffer is None:
        pool.when_room(lambda: with_room(pool, length, use), length)
    else:
        use(buffer)


async def take(pool: BufferPool, length: int) -> Buffer:
    """Wait for a buffer."""
    buffer = pool.try_take(length)
    if buffer is not None:
        return buffer
    taken: asyncio.Future[Buffer | None] = asyncio.get_running_loop().create_future()

    def take_now() -> None:
        if not taken.done():
            taken.set_result(pool.try_take(length))

    pool.when_room(take_now, length)
    try:
        return await taken or await take(pool, length)
    except asyncio.CancelledError:
        pool.forget(take_now)
        if taken.done() and not taken.cancelled() and (orphan := taken.result()) is not None:
            orphan.release()
        raise
