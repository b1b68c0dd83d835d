"""The flushes of one device: shared by all who ask while one runs, and never believed again after a failure.

Linux reports that cached writes were lost once, to the next fsync, and the one after it succeeds with the
data gone. So after the first failure every flush and every durable write of this device fails with that
error, until the device is opened anew: rule of the house «a failed flush is final».

Of flushes and durable writes that are under way together any one may be told of the loss, in the others' stead. So none that has
succeeded is believed before those are answered that were under way with it: a hanging one holds them, until it is overdue.
"""

import asyncio
from collections import deque
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
        # Flushes and durable writes, by numbers in the order in which they began; and what has succeeded, with the last that was
        # under way with it.
        self._begun = 0
        self._under_way: dict[int, None] = {}
        self._held: deque[tuple[int, Done, object]] = deque()

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

    def begin(self) -> int:
        """A durable write begins, with a flush of its own; returns what to `end` it by."""
        self._begun += 1
        self._under_way[self._begun] = None
        return self._begun

    def end(self, sync: int, error: int) -> None:
        """It is done. With an error that may be the flush's, none is believed from here on."""
        del self._under_way[sync]
        self.error = self.error or error
        self._answer_held()

    def believe(self, done: Done, context: object) -> None:
        """Answer what has just succeeded, once that is beyond doubt."""
        self._held.append((self._begun, done, context))
        self._answer_held()

    def _start(self) -> None:
        self._running, self._next = self._next, []
        self._start_flush(self._finished, self.begin())

    def _finished(self, sync: int, error: int) -> None:
        finished, self._running = self._running, []
        self._held.extend((self._begun, done, context) for done, context in finished)
        self.end(sync, error)
        if self.error:  # the next flush would succeed, and lie
            self._held.extend((self._begun, done, context) for done, context in self._next)
            self._next = []
            self._answer_held()
        elif self._next and not self._running:
            self._start()

    def _answer_held(self) -> None:
        oldest = next(iter(self._under_way), self._begun + 1)
        while self._held and (self.error or self._held[0][0] < oldest):
            _, done, context = self._held.popleft()
            answer(self._loop, done, context, self.error)
