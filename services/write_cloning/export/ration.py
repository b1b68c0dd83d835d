"""One connection's share of memory: a buffer now, or a call when it is its turn.

The pool is for all connections of a volume, first come, first served. Where it is exhausted each connection still has a
small reserve of its own, so that no client's small requests wait for memory that others hold.
"""

import asyncio
from collections.abc import Callable

from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.export.limits import RESERVE_BYTES


class Ration:
    """Takes buffers for one connection, which asks for one at a time and goes on when it is called."""

    __slots__ = ("_loop", "_pool", "_reserve", "_spare", "_wanted_bytes", "_when_room", "_when_short")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: BufferPool,
        when_room: Callable[[], None],
        when_short: Callable[[], None],
    ) -> None:
        """`when_short` is called when the wait for the pool begins, within a `take` that gives None.

        `when_room` is called from the loop after such a `take`, when the next one will give a buffer.
        """
        self._loop = loop
        self._pool = pool
        self._reserve = BufferPool(RESERVE_BYTES)
        self._when_room = when_room
        self._when_short = when_short
        self._wanted_bytes = 0  # what the pool was asked for and did not have
        self._spare: Buffer | None = None  # what it then had

    @property
    def is_pool_contended(self) -> bool:
        """Whether somebody waits for memory that others hold."""
        return self._pool.is_contended

    def take(self, length: int) -> Buffer | None:
        """A buffer, or None when it is not our turn yet: try again when called, or when a buffer of ours was released."""
        spare = self._spare
        if spare is not None:
            self._spare = None
            if spare.size_bytes >= length:
                return spare
            spare.release()
        if not self._wanted_bytes:
            buffer = self._pool.try_take(length)
            if buffer is not None:
                return buffer
        return self._take_reserve_or_wait(length)

    def give_up(self) -> None:
        """Wait no more, and hold nothing that was not used."""
        self._withdraw()
        if self._spare is not None:
            spare, self._spare = self._spare, None
            spare.release()

    def close(self) -> None:
        """Give the reserve back to the system, unless an error of ours has left buffers out; these keep it."""
        if not self._reserve.in_use_bytes:
            self._reserve.close()

    def _take_reserve_or_wait(self, length: int) -> Buffer | None:
        buffer = self._reserve.try_take(length) if length <= RESERVE_BYTES else None
        if buffer is not None:
            self._withdraw()
        elif not self._wanted_bytes:
            self._wanted_bytes = length
            self._pool.when_room(self._keep_spare, length)
            self._when_short()
        return buffer

    def _withdraw(self) -> None:
        if self._wanted_bytes:
            self._wanted_bytes = 0
            self._pool.forget(self._keep_spare)

    def _keep_spare(self) -> None:
        """Take the buffer now, because the turn lasts only as long as this call; use it soon."""
        self._spare = self._pool.try_take(self._wanted_bytes)
        self._wanted_bytes = 0
        self._loop.call_soon(self._when_room)
