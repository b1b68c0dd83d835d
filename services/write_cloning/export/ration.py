"""One connection's share of the buffer pool: a buffer now, or a call when it is its turn."""

import asyncio
from collections.abc import Callable

from services.write_cloning.devices.buffers import Buffer, BufferPool


class Ration:
    """Takes buffers for one connection, which asks for one at a time and goes on when it is called."""

    __slots__ = ("_loop", "_pool", "_spare", "_wanted_bytes", "_when_room")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pool: BufferPool, when_room: Callable[[], None]
    ) -> None:
        """`when_room` is called from the loop after a `take` that gave None, when the next one will give a buffer."""
        self._loop = loop
        self._pool = pool
        self._when_room = when_room
        self._wanted_bytes = 0  # what the pool was asked for and did not have
        self._spare: Buffer | None = None  # what it then had

    @property
    def is_pool_contended(self) -> bool:
        """Whether somebody waits for memory that others hold."""
        return self._pool.is_contended

    def take(self, length: int) -> Buffer | None:
        """A buffer, or None when it is not our turn yet."""
        spare = self._spare
        if spare is not None:
            self._spare = None
            if spare.size_bytes >= length:
                return spare
            spare.release()
        if self._wanted_bytes:
            return None
        buffer = self._pool.try_take(length)
        if buffer is None:
            self._wanted_bytes = length
            self._pool.when_room(self._keep_spare, length)
        return buffer

    def give_up(self) -> None:
        """Wait no more, and hold nothing that was not used."""
        if self._wanted_bytes:
            self._wanted_bytes = 0
            self._pool.forget(self._keep_spare)
        if self._spare is not None:
            spare, self._spare = self._spare, None
            spare.release()

    def _keep_spare(self) -> None:
        """Take the buffer now, because the turn lasts only as long as this call; use it soon."""
        self._spare = self._pool.try_take(self._wanted_bytes)
        self._wanted_bytes = 0
        self._loop.call_soon(self._when_room)
