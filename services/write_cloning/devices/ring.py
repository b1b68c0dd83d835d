"""The io_uring engine: one ring for the whole process, a lane for each device.

Pushing a request writes one entry and starts nothing; the first push of a loop iteration schedules one `_submit`, so
that all that one iteration brings goes to the kernel in one system call. Collecting completions is the same call.

Nothing in here blocks, and no device waits for another. What the kernel cannot do at once it gives to workers, as many
as it takes (`rings`). One thing would still couple devices: the kernel first tries a write to a file without waiting,
and when that is refused, as ext4 always does when it is buffered, it puts the file's writes into one of 64 queues, by a
hash of the file (`io_wq_hash_work` in the kernel's io_uring/io-wq.c). Files that share a queue wait for each other, so
that a frozen one stops one in 64 of the others for good; seen in tests. So writes of such files carry IOSQE_ASYNC: they
go to the workers without a try, and are not hashed. That costs nothing, since the try would have failed.
"""

import asyncio
import os
from collections import deque
from collections.abc import Sequence

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.engine import LANE_DEPTH, TRANSFERS, Odd, Operation, report
from services.write_cloning.devices.errors import EngineFullError, EngineMisuseError
from services.write_cloning.devices.interface import Done, Write
from services.write_cloning.devices.rings import ENTRY, ENTRY_SHIFT, TOKENS, Rings, word_of

RETRY_S = 0.001  # the kernel had no memory for our requests; nothing tells when it has

Slot = tuple["RingLane", int, Done, object]  # whose, the result that means success, and whom to tell
_Waiting = tuple[Operation, int, int, int, int, Done, object]

_PACK = ENTRY.pack_into


class RingLane:
    """One descriptor's place in the ring: `LANE_DEPTH` tokens, and a queue for what exceeds them."""

    __slots__ = (
        "_engine",
        "_entries",
        "_fd",
        "_idle",
        "_odd",
        "_read_word",
        "_rings",
        "_schedule",
        "_slots",
        "_staged",
        "_write_word",
        "first",
        "free",
        "is_closed",
        "waiting",
    )

    def __init__(self, engine: "RingEngine", first: int, fd: int, odd: Odd, *, is_hashed: bool) -> None:
        """Own the tokens from `first` on."""
        self.first = first
        self.free = list(range(first + LANE_DEPTH - 1, first - 1, -1))
        self.is_closed = False
        self._engine = engine
        self._rings = engine.rings
        self._entries = engine.rings.entries
        self._slots = engine.slots
        self._staged = engine.staged
        self._schedule = engine.schedule
        self._fd = fd
        self._odd = odd
        self._read_word = word_of(Operation.READ, fd)
        self._write_word = word_of(Operation.WRITE, fd, is_async=is_hashed)
        self.waiting: deque[_Waiting] = deque()  # not empty only while `free` is
        self._idle: asyncio.Future[None] | None = None

    @property
    def in_ring(self) -> int:
        """Requests that the kernel has, or will have when this loop iteration ends."""
        return 0 if self.is_closed else LANE_DEPTH - len(self.free)

    @property
    def outstanding(self) -> int:
        """Requests that are not done."""
        return self.in_ring + len(self.waiting)

    def read(self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object) -> None:
        """Read into `buffer`."""
        free = self.free
        address = buffer.address + start
        if not free:
            self.submit(Operation.READ, offset, address, length, 0, done, context)
            return
        token = free.pop()
        _PACK(self._entries, token << ENTRY_SHIFT, self._read_word, offset, address, length, 0)
        self._slots[token] = (self, length, done, context)
        staged = self._staged
        if not staged:
            self._schedule()
        staged.append(token)

    def write(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object
    ) -> None:
        """Write out of `buffer`."""
        free = self.free
        address = buffer.address + start
        if not free:
            self.submit(Operation.WRITE, offset, address, length, 0, done, context)
            return
        token = free.pop()
        _PACK(self._entries, token << ENTRY_SHIFT, self._write_word, offset, address, length, 0)
        self._slots[token] = (self, length, done, context)
        staged = self._staged
        if not staged:
            self._schedule()
        staged.append(token)

    def write_all(self, writes: Sequence[Write], done: Done) -> None:
        """Write each, in this order."""
        free, slots, entries, word = self.free, self._slots, self._entries, self._write_word
        tokens: list[int] = []
        for write in writes:
            length, buffer = write.length, write.buffer
            if buffer is None:
                raise EngineMisuseError("a write came without its bytes")
            address = buffer.address + write.start
            if not free:
                self.submit(Operation.WRITE, write.offset, address, length, 0, done, write)
                continue
            token = free.pop()
            _PACK(entries, token << ENTRY_SHIFT, word, write.offset, address, length, 0)
            slots[token] = (self, length, done, write)
            tokens.append(token)
        if not self._staged:
            self._schedule()
        self._staged += tokens

    def submit(
        self,
        operation: Operation,
        offset: int,
        address: int,
        length: int,
        flags: int,
        done: Done,
        context: object,
    ) -> None:
        """Do anything; waits its turn when the lane is full."""
        if self.is_closed:
            raise EngineMisuseError("a request came for a device that is closed")
        if not self.free:
            self.waiting.append((operation, offset, address, length, flags, done, context))
            return
        token = self.free.pop()
        word = self._write_word if operation is Operation.WRITE else word_of(operation, self._fd)
        self._rings.prepare(token, word, operation, offset, address, length, flags)
        success = length if operation in TRANSFERS else 0
        self._slots[token] = (self, success, done, context)
        if not self._staged:
            self._schedule()
        self._staged.append(token)

    def advance(self) -> None:
        """Start what waited, as far as there are tokens. Called when one became free."""
        waiting = self.waiting
        while waiting and self.free:
            self.submit(*waiting.popleft())

    def finish_oddly(self, token: int, result: int, done: Done, context: object) -> None:
        """Take a completion that is not plain success."""
        operation, offset, address, length, flags = self._rings.describe(token)
        self.free.append(token)
        self.advance()
        self._odd(operation, offset, address, length, flags, result, done, context)

    async def close(self) -> None:
        """Wait until nothing is outstanding, and give the tokens back."""
        while self.in_ring or self.waiting:
            if self._idle is None or self._idle.done():
                self._idle = asyncio.get_running_loop().create_future()
                self._engine.watch_for_idleness(self)
            await asyncio.shield(self._idle)
        if not self.is_closed:
            self.is_closed = True
            self.free = []
            self._engine.give_back(self)

    def notice_idle(self) -> bool:
        """Wake `close` if nothing is left; returns whether it need not be watched any more."""
        if self._idle is None or self._idle.done():
            return True
        if self.in_ring or self.waiting:
            return False
        self._idle.set_result(None)
        return True


class RingEngine:
    """The process's io_uring. Belongs to the loop that it was made in."""

    name = "io_uring"

    def __init__(self) -> None:
        """Set up the ring and watch it.

        Raises:
            EngineUnavailableError: io_uring cannot be used here.
        """
        self._loop = asyncio.get_running_loop()
        self.rings = Rings()
        self.slots: list[Slot | None] = [None] * TOKENS
        self.staged: list[int] = []
        self._unused = [*range(TOKENS - LANE_DEPTH, -1, -LANE_DEPTH)]
        self._lanes: set[RingLane] = set()
        self._closing: list[RingLane] = []
        self._loop.add_reader(self.rings.eventfd, self._collect)

    @property
    def lanes_open(self) -> int:
        """Lanes that were not closed."""
        return len(self._lanes)

    def open_lane(self, fd: int, odd: Odd, *, is_hashed: bool) -> RingLane:
        """Give a descriptor a lane."""
        if not self._unused:
            raise EngineFullError(f"{len(self._lanes)} devices are open, and io_uring's lanes are all taken")
        lane = RingLane(self, self._unused.pop(), fd, odd, is_hashed=is_hashed)
        self._lanes.add(lane)
        return lane

    def give_back(self, lane: RingLane) -> None:
        """Take a closed lane's tokens back."""
        self._lanes.remove(lane)
        self._unused.append(lane.first)

    async def close(self) -> None:
        """Unmap the ring."""
        if self._lanes:
            raise EngineMisuseError(f"io_uring was closed while {len(self._lanes)} devices use it")
        self._loop.remove_reader(self.rings.eventfd)
        self.rings.close()

    def schedule(self) -> None:
        """Submit once this loop iteration has pushed all that it has."""
        self._loop.call_soon(self._submit)

    def watch_for_idleness(self, lane: RingLane) -> None:
        """Tell the lane when nothing is left in it."""
        self._closing.append(lane)

    def _submit(self) -> None:
        if self.staged:
            self._turn()

    def _collect(self) -> None:
        os.eventfd_read(self.rings.eventfd)
        self._turn()

    def _turn(self) -> None:
        """Hand over what is staged and take what is done."""
        rings, staged = self.rings, self.staged
        if staged:
            rings.stage(staged)
            staged.clear()
        left = rings.enter()
        self._complete(rings.completions())
        if left:
            self._loop.call_later(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        if self._lanes:  # or the ring may be closed by now
            self._turn()

    def _complete(self, completions: list[tuple[int, int, int]]) -> None:
        slots = self.slots
        remaining = iter(completions)
        try:
            for token, result, _ in remaining:
                lane, success, done, context = slots[token]  # type: ignore[misc]
                slots[token] = None
                if result != success:
                    self._complete_oddly(lane, token, result, done, context)
                    continue
                lane.free.append(token)
                if lane.waiting:
                    lane.advance()
                try:
                    done(context, 0)
                except Exception as failure:  # noqa: BLE001 - handed on whole
                    report(self._loop, failure)
        except BaseException:  # the loop is being stopped, and may be started again
            self._loop.call_soon(self._complete, list(remaining))
            raise
        if self._closing:
            self._closing = [lane for lane in self._closing if not lane.notice_idle()]

    def _complete_oddly(self, lane: RingLane, token: int, result: int, done: Done, context: object) -> None:
        try:
            lane.finish_oddly(token, result, done, context)
        except Exception as failure:  # noqa: BLE001 - handed on whole
            report(self._loop, failure)
