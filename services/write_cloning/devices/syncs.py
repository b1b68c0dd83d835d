"""The flushes of one device: shared by all who ask while one runs, and never believed again after a failure.

Linux reports that cached writes were lost once, to the next fsync, and the one after it succeeds with the
data gone. So after the first failure every flush and every durable write of this device fails with that
error, until the device is opened anew: rule of the house «a failed flush is final».
"""

import asyncio
from collections.abc import Callable

from services.write_cloning.devices.engine import answer
from services.write_cloning.devices.interface import Done


class Syncs:
    """At most one flush runs; those that are asked for meanwhile become the next, one for all."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: Callable[[Done, object], None]) -> None:
        """Begin with nothing failed. `start` starts one flush of the device."""
        self.error = 0
        self._loop = loop
        self._start_flush = start
        self._running: list[tuple[Done, object]] = []
        self._next: list[tuple[Done, object]] = []

    @property
    def waiting(self) -> int:
        """Flushes that no request of the device stands for yet."""
        return len(self._next)

    def request(self, done: Done, context: object) -> None:
        """Make durable what was done before this call."""
        if self.error:
            self.refuse(done, context)
            return
        self._next.append((done, context))
        if not self._running:
            self._start()

    def refuse(self, done: Done, context: object) -> None:
        """Answer with the failure that was."""
        self._loop.call_soon(done, context, self.error)

    def failed(self, error: int) -> None:
        """Believe no flush from here on."""
        self.error = self.error or error

    def _start(self) -> None:
        self._running, self._next = self._next, []
        self._start_flush(self._finished, None)

    def _finished(self, _context: object, error: int) -> None:
        finished, self._running = self._running, []
        if error:
            self.failed(error)
            finished += self._next  # the next flush would succeed, and lie
            self._next = []
        elif self._next:
            self._start()
        for done, context in finished:
            answer(self._loop, done, context, error)
