"""The engine of plain system calls in threads, for where io_uring is not allowed, as in many containers.

Each lane has threads of its own, so that a device that hangs holds only those. They are started as they are needed,
up to a bound, and take requests in the order of their arrival. What one loop iteration brings is handed over at its end,
and results are collected by the loop, many at a time.

The threads are daemons: one that the kernel does not let go of must not keep the process from ending. Nothing is lost
by that, since a request that is under way when a process ends was never answered.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

from services.write_cloning.devices import syscalls
from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.engine import TRANSFERS, Odd, Operation, report
from services.write_cloning.devices.errors import EngineMisuseError
from services.write_cloning.devices.interface import Done, Write
from services.write_cloning.devices.one_by_one import write_one_by_one


@dataclass(frozen=True, slots=True)
class Crew:
    """How a lane's threads work: how many there are, and how many requests one of them takes at once."""

    threads: int
    batch: int


# A cached file does its writes one at a time anyway, and each takes a few microseconds: handing the interpreter's lock
# from thread to thread would cost more. So few threads take many requests, and report them together.
CREW_OF_CACHED_FILE = Crew(threads=2, batch=16)
# Elsewhere a request is a wait for a disk, and those of many threads are done side by side.
CREW_OF_DISK = Crew(threads=8, batch=1)

_Job = tuple[Operation, int, int, int, int, Done, object]


class ThreadLane:
    """One descriptor, and the threads that work for it."""

    def __init__(
        self,
        fd: int,
        odd: Odd,
        *,
        crew: Crew,
        dismissed: "Callable[[ThreadLane], None]",
    ) -> None:
        """Start no thread before there is work. `dismissed` is called when the lane is given up."""
        self._fd = fd
        self._odd = odd
        self._crew = crew
        self._dismissed = dismissed
        self._threads = 0
        self._loop = asyncio.get_running_loop()
        self._staged: list[_Job] = []
        self._jobs: SimpleQueue[list[_Job] | None] = SimpleQueue()
        self._finished: deque[tuple[_Job, int]] = deque()
        self._is_collecting = False
        self._is_closed = False
        self._idle: asyncio.Future[None] | None = None
        self.outstanding = 0

    def read(self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object) -> None:
        """Read into `buffer`."""
        self.submit(Operation.READ, offset, buffer.address + start, length, 0, done, context)

    def write(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object
    ) -> None:
        """Write out of `buffer`."""
        self.submit(Operation.WRITE, offset, buffer.address + start, length, 0, done, context)

    def write_all(self, writes: Sequence[Write], done: Done) -> None:
        """Write each, in this order."""
        write_one_by_one(self.write, writes, done)

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
        """Do anything, once this loop iteration has brought all that it has."""
        if self._is_closed:
            raise EngineMisuseError("a request came for a device that is closed")
        if not self._staged:
            self._loop.call_soon(self._hand_over)
        self._staged.append((operation, offset, address, length, flags, done, context))
        self.outstanding += 1

    def _hand_over(self) -> None:
        """Give the threads what this loop iteration has brought."""
        staged, batch = self._staged, self._crew.batch
        for start in range(0, len(staged), batch):
            self._jobs.put(staged[start : start + batch])
            if self._threads < self._crew.threads:
                self._threads += 1
                Thread(target=self._work, name=f"device-{self._fd}-{self._threads}", daemon=True).start()
        staged.clear()

    async def close(self) -> None:
        """Wait until nothing is outstanding, and send the threads home."""
        while self.outstanding:
            if self._idle is None or self._idle.done():
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)
        self.dismiss()

    def dismiss(self) -> None:
        """Send the threads home. Only when nothing is outstanding."""
        self._is_closed = True
        for _ in range(self._threads):
            self._jobs.put(None)
        self._threads = 0
        self._dismissed(self)

    def _work(self) -> None:
        """Run in a thread: do what is asked until sent home."""
        while (jobs := self._jobs.get()) is not None:
            self._finished.extend([(job, _perform(self._fd, job)) for job in jobs])
            # Whoever sees the flag set appended before `_collect` cleared it, and is collected by that call.
            if not self._is_collecting:
                self._is_collecting = True
                try:
                    self._loop.call_soon_threadsafe(self._collect)
                except RuntimeError:  # the loop has ended, and with it everyone who waited
                    return

    def _collect(self) -> None:
        """Answer what the threads have finished."""
        self._is_collecting = False
        finished = self._finished
        try:
            while finished:
                job, result = finished.popleft()
                self.outstanding -= 1
                try:
                    self._answer(job, result)
                except Exception as failure:  # noqa: BLE001 - handed on whole
                    report(self._loop, failure)
        except BaseException:  # the loop is being stopped, and may be started again
            self._loop.call_soon(self._collect)
            raise
        if not self.outstanding and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _answer(self, job: _Job, result: int) -> None:
        operation, offset, address, length, flags, done, context = job
        if result == (length if operation in TRANSFERS else 0):
            done(context, 0)
        else:
            self._odd(operation, offset, address, length, flags, result, done, context)


class ThreadEngine:
    """Lanes of threads."""

    name = "threads"

    def __init__(self) -> None:
        """Start nothing."""
        self._lanes: set[ThreadLane] = set()

    @property
    def lanes_open(self) -> int:
        """Lanes that were not closed."""
        return len(self._lanes)

    def open_lane(self, fd: int, odd: Odd, *, is_hashed: bool) -> ThreadLane:
        """Give a descriptor a lane."""
        crew = CREW_OF_CACHED_FILE if is_hashed else CREW_OF_DISK
        lane = ThreadLane(fd, odd, crew=crew, dismissed=self._lanes.discard)
        self._lanes.add(lane)
        return lane

    async def close(self) -> None:
        """Check that nobody is left."""
        if self._lanes:
            raise EngineMisuseError(f"the threads were dismissed while {len(self._lanes)} devices use them")


def _perform(fd: int, job: _Job) -> int:
    """Do one request by a system call; returns a count or a negated errno."""
    operation, offset, address, length, flags, _, _ = job
    match operation:
        case Operation.READ:
            return syscalls.pread(fd, address, length, offset)
        case Operation.WRITE:
            return syscalls.pwrite(fd, address, length, offset, flags)
        case Operation.SYNC:
            return syscalls.fdatasync(fd)
        case Operation.ALLOCATE:
            return syscalls.fallocate(fd, flags, offset, length)
        case Operation.ADVISE:
            return syscalls.fadvise(fd, offset, length, flags)
