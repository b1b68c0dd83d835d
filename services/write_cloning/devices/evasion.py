"""Keeps a frozen file from stopping the writes of other files inside the kernel.

io_uring hands buffered writes to workers, and lets the writes of one file run one after the other by
*hashing* the file into one of 64 queues (`io_wq_hash_work` in the kernel's io_uring/io-wq.c; other kinds of
requests and devices are not hashed). Two files may share a queue. If one of them is on a frozen or dead
filesystem, the other's writes wait behind it for ever: one pair of files in 64, seen in tests.

So lanes of buffered files are looked at every `TICK_S`, as long as any has something in flight. A write
that was there at the last look and still is, is *late*: its lane withdraws from the kernel all writes that
have not begun, and does them, and those that come, on a thread of its own: the *detour*. A lane whose file
is the frozen one only moves its waiting from one place to another. When no late write is left in any lane,
lanes go back to the ring.

The hot path pays nothing for this: being late is seen by a slot holding the very tuple that it held before.
"""

import asyncio
import errno
from collections.abc import Callable, Sequence
from typing import Protocol

from services.write_cloning.devices.engine import LANE_DEPTH, Operation
from services.write_cloning.devices.rings import Rings
from services.write_cloning.devices.threads import ThreadLane

TICK_S = 0.015
SERIALISED_OPERATIONS = frozenset({Operation.WRITE, Operation.ALLOCATE})


class Evading(Protocol):
    """What is asked of a lane."""

    detour: ThreadLane | None

    @property
    def first(self) -> int:
        """Its first token."""

    @property
    def in_ring(self) -> int:
        """How many of its requests the ring has."""

    def start_detour(self) -> None:
        """Send writes to a thread of the lane's own from here on."""

    def end_detour(self) -> None:
        """Send writes to the ring again; the thread has nothing left."""


class Evasion:
    """Watches lanes of buffered files. `slots` is the ring's list of requests in flight, by token."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rings: Rings,
        slots: Sequence[object],
        withdraw: Callable[[int], bool],
    ) -> None:
        """Watch nothing yet."""
        self._loop = loop
        self._rings = rings
        self._slots = slots
        self._withdraw = withdraw
        self._seen: dict[Evading, Sequence[object]] = {}  # each lane's slots at the last look
        self._withdrawn: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    @staticmethod
    def was_withdrawn(operation: Operation, result: int) -> bool:
        """Whether a completion on a lane that evades means: not done, do it the other way."""
        # EINTR: it had begun, and our withdrawal interrupted it. Writing or zeroing a range again is
        # harmless, because the volume starts no other request in that range before this one is answered.
        return operation in SERIALISED_OPERATIONS and result in {-errno.ECANCELED, -errno.EINTR}

    def add(self, lane: Evading) -> None:
        """Watch a lane."""
        self._seen[lane] = ()

    def discard(self, lane: Evading) -> None:
        """Watch a lane no longer."""
        self._seen.pop(lane, None)

    def wake(self) -> None:
        """Something was started: look again and again until nothing is in flight."""
        if self._timer is None and self._seen:
            self._timer = self._loop.call_later(TICK_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        late = {lane: self._late_tokens(lane) for lane in self._seen if lane.in_ring}
        for lane, tokens in late.items():
            if tokens and lane.detour is None:
                lane.start_detour()
            if lane.detour is not None:
                self._withdraw_all(lane)
        detoured = [lane for lane in self._seen if lane.detour is not None]
        if not any(late.values()):
            self._end_detours(detoured)
        if late or detoured:
            self.wake()

    def _late_tokens(self, lane: Evading) -> list[int]:
        """Note what is in flight, and find the writes that were so the last time already."""
        seen = self._seen[lane]
        now = self._slots[lane.first : lane.first + LANE_DEPTH]
        self._seen[lane] = now
        pairs = enumerate(zip(seen, now, strict=False), lane.first)
        return [
            token for token, (old, new) in pairs if old is not None and old is new and self._is_write(token)
        ]

    def _withdraw_all(self, lane: Evading) -> None:
        for token in range(lane.first, lane.first + LANE_DEPTH):
            if self._slots[token] is None or not self._is_write(token):
                self._withdrawn.discard(token)
            elif token not in self._withdrawn and self._withdraw(token):
                self._withdrawn.add(token)

    def _end_detours(self, lanes: list[Evading]) -> None:
        for lane in lanes:
            if lane.detour is not None and not lane.detour.outstanding:
                lane.end_detour()
                self._withdrawn.difference_update(range(lane.first, lane.first + LANE_DEPTH))

    def _is_write(self, token: int) -> bool:
        return self._rings.opcode(token) in SERIALISED_OPERATIONS
