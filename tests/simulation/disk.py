"""A disk with a volatile cache, and the handle that a process has on it while it is open (implements `Device`).

Completed writes stand in the cache until a flush that began after them is done. At a power cut each sector keeps what is
durable or any one of the values that came since: none, all, a random choice; so writes are reordered and torn between
sectors, never within one. Requests are done in any order; those under way when their process dies land, or not, or partly.
"""

import asyncio
import errno
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.interface import Done, Extent, WentOn, Write, ZeroMode, nobody_asks
from services.write_cloning.devices.one_by_one import write_one_by_one
from shared.migration.devices import DeviceIdentity, DeviceKind
from shared.migration.refusals import InvariantError
from tests.simulation.process import Process

SECTOR = 512
ZERO = bytes(SECTOR)
HOLE = bytes(bytearray(SECTOR))  # reads as zeroes, and is no storage: another object than ZERO
JUNK = b"\xee" * SECTOR  # what a read that failed leaves in its buffer

SLOW_CHANCE = 0.02
SLOW_FLUSH_CHANCE = 0.3  # where slowness is what is looked at
OFTEN_SLOW_CHANCE = 0.1  # there, of others than flushes
LOST_SHARE = 0.7  # of what is cached, when writeback fails


@dataclass(slots=True)
class DiskFault:
    """What goes wrong next: `operation` (or any, when empty) fails `times` times."""

    kind: str  # for the counts: eio, enospc, short, flush-once
    operation: str
    errno: int
    times: int
    sectors: range | None = None

    def meets(self, asked: "Asked") -> bool:
        """Whether it happens to a request. A durable write is a write with a flush in it, and may fail as either."""
        if self.operation == "flush":
            return asked.operation == "flush" or asked.durable
        return self.operation in {"", asked.operation} and (
            asked.operation == "flush" or self._touches(asked)
        )

    def _touches(self, asked: "Asked") -> bool:
        where = self.sectors
        return where is None or (asked.low < where.stop and where.start < asked.high)


@dataclass(slots=True, eq=False)
class Asked:
    """A request under way."""

    operation: str
    low: int  # sectors
    high: int
    values: list[bytes] | None  # that it writes
    durable: bool
    mark: int  # of a flush: the last write that it covers
    buffer: Buffer | None
    start: int
    done: Done
    context: Any
    handle: "OpenDisk"
    attempt: int  # in which it was asked


@dataclass(slots=True)
class Watchers:
    """Who looks over a disk's shoulder. Everything is called before it happens."""

    io: Callable[["OpenDisk", Asked], None]
    fault: Callable[[str], None]
    point: Callable[[str, Process], None]


@dataclass(slots=True)
class Disk:
    """What stays when processes come and go."""

    name: str
    sectors: int
    alignment_bytes: int
    rng: random.Random
    watchers: Watchers
    slow_s: float = 0.5  # how long a request may take, once in a while
    slow_chance: float = SLOW_CHANCE
    slow_flush_chance: float = SLOW_CHANCE
    can_zero_fast: bool = True
    durable: list[bytes] = field(default_factory=list)
    view: list[bytes] = field(default_factory=list)
    unsynced: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    faults: list[DiskFault] = field(default_factory=list)
    handles: list["OpenDisk"] = field(default_factory=list)
    stuck: list[Asked] = field(default_factory=list)
    writes: int = 0
    is_hanging: bool = False
    is_missing: bool = False
    has_lost_writes: bool = False  # a flush has failed since the last opening: what was cached may be gone
    has_ever_lost_writes: bool = False  # in the life of this host
    failures: int = 0  # since the last opening
    attempt: int = 0  # counted by whoever wants to know in which one a flush was asked
    flush_failed_in: int = -1  # the last attempt in which one was asked, or a durable write, that failed
    has_untold_loss: bool = False  # writeback has failed, and the next flush will tell
    quietly_lost: set[int] = field(default_factory=set)  # sectors that went back, and were not written since
    unseen: set[int] = field(
        default_factory=set
    )  # those of them that went back while reads came from elsewhere
    is_honest: bool = True  # False: flushes do nothing (the positive control)
    is_remote: bool = False
    left: dict[Asked, None] = field(default_factory=dict)  # of a remote one: requests that may still land

    def fill(self, values: list[bytes]) -> None:
        """Begin with these sectors, durably."""
        self.durable, self.view = list(values), list(values)

    @property
    def identity(self) -> DeviceIdentity:
        return DeviceIdentity(
            name=self.name, kind=DeviceKind.FILE, token=f"disk:{self.name}", size_bytes=self.sectors * SECTOR
        )

    @property
    def is_cut_off(self) -> bool:
        """Whether a connection to it is broken that a process still has."""
        return any(handle.is_broken for handle in self.handles)

    @property
    def outstanding(self) -> int:
        return sum(handle.outstanding for handle in self.handles)

    @property
    def being_read(self) -> set[int]:
        """The sectors of the reads that are under way."""
        return {sector for handle in self.handles for sector in handle.being_read()}

    def put(self, sector: int, value: bytes, *, durable: bool) -> None:
        if value != self.view[sector]:  # else it may be what it went back to, read to fill up a block
            self.quietly_lost.discard(sector)
            self.unseen.discard(sector)
        self.view[sector] = value
        if durable and self.is_honest:
            self.durable[sector] = value
            self.unsynced.pop(sector, None)
        else:
            self.writes += 1
            self.unsynced.setdefault(sector, []).append((self.writes, value))

    def sync(self, mark: int) -> None:
        """Everything up to this write is durable."""
        if not self.is_honest:
            return
        for sector in list(self.unsynced):
            since = self.unsynced[sector]
            covered = [each for each in since if each[0] <= mark]
            if covered:
                self.durable[sector] = covered[-1][1]
                self.unsynced[sector] = since[len(covered) :]
                if not self.unsynced[sector]:
                    del self.unsynced[sector]

    def lose(self) -> None:
        """A flush has failed: the cache forgets some of what it held, and shows it all the same until it is looked at anew."""
        self.has_lost_writes = self.has_ever_lost_writes = True
        for sector in list(self.unsynced):
            kept = [each for each in self.unsynced[sector] if self.rng.random() < 0.3]
            self.unsynced[sector] = kept
            if not kept:
                del self.unsynced[sector]

    def lose_quietly(self) -> set[int]:
        """Writeback fails: some sectors read as they were before, and nothing tells until the next flush; returns those."""
        lost: set[int] = set()
        for sector in list(self.unsynced):
            if self.rng.random() < LOST_SHARE:
                self.unsynced.pop(sector)
                self.view[sector] = self.durable[sector]
                lost.add(sector)
        if lost:
            self.has_untold_loss = self.has_ever_lost_writes = True
            self.quietly_lost |= lost
        return lost

    def look_anew(self) -> None:
        """What the cache had forgotten shows now."""
        if self.has_lost_writes:
            self.has_lost_writes = False
            for sector in range(self.sectors):
                since = self.unsynced.get(sector)
                self.view[sector] = since[-1][1] if since else self.durable[sector]

    def cut(self) -> None:
        """The power goes: of what is not durable, none, all or some survives. Nothing is open any more."""
        survival = self.rng.choice((0.0, 1.0, 0.5, 0.5, 0.9))
        for sector, since in self.unsynced.items():
            chosen = [value for _, value in since if self.rng.random() < survival]
            if chosen:
                self.durable[sector] = chosen[-1]
        self.unsynced.clear()
        self.quietly_lost.clear()
        self.unseen.clear()
        self.has_lost_writes = self.has_untold_loss = False
        self.view = list(self.durable)

    def let_go(self) -> None:
        """Hang no more: what was stuck is done, each in its own time."""
        self.is_hanging = False
        stuck, self.stuck = self.stuck, []
        for asked in stuck:
            asked.handle.schedule(asked)

    def fault_for(self, asked: Asked) -> DiskFault | None:
        for fault in self.faults:
            if not fault.meets(asked):
                continue
            fault.times -= 1
            if not fault.times:
                self.faults.remove(fault)
            self.failures += 1
            self.watchers.fault(f"{fault.kind}:{asked.operation}")
            return fault
        return None


class OpenDisk:
    """A handle. See `Device`."""

    engine_name = "simulated"
    is_broken = False

    def sever(self, error: int) -> None:
        """A lock does not break."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self.disk = disk
        self.process = process
        self.identity = disk.identity
        self.size_bytes = disk.sectors * SECTOR
        self.alignment_bytes = disk.alignment_bytes
        self.can_zero_fast = disk.can_zero_fast
        self.is_closed = False
        self.has_done_io = False
        self.has_written = False
        self.flush_error = 0
        self._loop = asyncio.get_running_loop()
        self._rng = disk.rng
        self._under_way: dict[Asked, None] = {}
        self._idle: asyncio.Future[None] | None = None
        disk.look_anew()
        disk.failures = 0
        disk.handles.append(self)

    @property
    def outstanding(self) -> int:
        return len(self._under_way)

    def being_read(self) -> Iterator[int]:
        """The sectors of the reads that are under way."""
        for asked in self._under_way:
            if asked.operation == "read":
                yield from range(asked.low, asked.high)

    # ------------------------------------------------------------------ what is asked

    def read(self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object) -> None:
        self._ask("read", offset, length, done, context, buffer=buffer, start=start)

    def read_at_once(self, offset: int, into: memoryview) -> bool:
        if self._rng.random() < 0.5 or self.disk.is_hanging or self.disk.faults:
            return False
        low, high = self._range(offset, len(into))
        asked = Asked(
            "read", low, high, None, False, 0, None, 0, lambda _context, _error: None, None, self, 0
        )
        self.disk.watchers.io(self, asked)
        into[:] = b"".join(self.disk.view[low:high])
        return True

    def write(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object
    ) -> None:
        self._ask("write", offset, length, done, context, values=_sectors(buffer, start, length))

    def write_all(self, writes: Sequence[Write], done: Done) -> None:
        write_one_by_one(self.write, writes, done)

    def write_durably(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object
    ) -> None:
        self._ask(
            "write", offset, length, done, context, values=_sectors(buffer, start, length), durable=True
        )

    def zero(
        self,
        offset: int,
        length: int,
        mode: ZeroMode,
        durable: bool,
        done: Done,
        context: object,
        went_on: WentOn = nobody_asks,
    ) -> None:
        values = [HOLE if mode is ZeroMode.PUNCH else ZERO] * (length // SECTOR)
        self._ask("zero", offset, length, done, context, values=values, durable=durable)

    def flush(self, done: Done, context: object) -> None:
        self._ask("flush", 0, 0, done, context)

    def prefetch(self, offset: int, length: int, done: Done, context: object) -> None:
        self._ask("prefetch", offset, length, done, context)

    async def extents(self, offset: int, length: int, most: int | None = None) -> Sequence[Extent]:
        low, high = self._range(offset, length)
        await asyncio.sleep(self._latency())
        extents: list[Extent] = []
        for sector in range(low, high):
            is_hole = self._is_hole(sector)
            if extents and extents[-1].is_hole is is_hole:
                extents[-1] = Extent(extents[-1].offset, extents[-1].length + SECTOR, is_hole=is_hole)
            elif most is not None and len(extents) == most:
                break
            else:
                extents.append(Extent(sector * SECTOR, SECTOR, is_hole=is_hole))
        return extents

    def _is_hole(self, sector: int) -> bool:
        block = self.alignment_bytes // SECTOR
        first = sector // block * block
        return all(value is HOLE for value in self.disk.view[first : first + block])

    async def close(self) -> None:
        while self._under_way:
            if self._idle is None or self._idle.done():
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)
        self._close()

    # ------------------------------------------------------------------ what comes of it

    def _ask(
        self,
        operation: str,
        offset: int,
        length: int,
        done: Done,
        context: object,
        *,
        values: list[bytes] | None = None,
        durable: bool = False,
        buffer: Buffer | None = None,
        start: int = 0,
    ) -> None:
        if self.process.is_dead:
            return
        if self.is_closed:
            raise InvariantError(f"{operation} on {self.disk.name}, which is closed")
        low, high = self._range(offset, length)
        if operation != "prefetch" and (offset % self.alignment_bytes or length % self.alignment_bytes):
            raise InvariantError(
                f"{operation} of {offset}+{length}, in blocks of {self.alignment_bytes} bytes"
            )
        disk = self.disk
        asked = Asked(
            operation, low, high, values, durable, disk.writes, buffer, start, done, context, self, disk.attempt
        )  # fmt: skip
        disk.watchers.io(self, asked)
        self._under_way[asked] = None
        self.schedule(asked)
        if operation == "flush":
            disk.watchers.point("flush:begun", self.process)

    def schedule(self, asked: Asked) -> None:
        """Have it done some time."""
        if not self.process.is_dead:
            chance = self.disk.slow_flush_chance if asked.operation == "flush" else self.disk.slow_chance
            self._loop.call_later(self._latency(chance), self._due, asked, context=self.process.context)

    def _latency(self, slow_chance: float = SLOW_CHANCE) -> float:
        drawn = self._rng.random()
        return drawn * self.disk.slow_s if self._rng.random() < slow_chance else drawn * 0.004

    def _due(self, asked: Asked) -> None:
        disk = self.disk
        if disk.is_hanging:
            disk.stuck.append(asked)
            disk.watchers.fault(f"hang:{asked.operation}")
            return
        error = self._act(asked)
        self._loop.call_soon(self._answer, asked, error)

    def _act(self, asked: Asked) -> int:
        disk = self.disk
        if (asked.operation == "flush" or asked.durable) and self.flush_error:
            return self.flush_error
        if disk.has_untold_loss and (asked.operation == "flush" or asked.durable):
            return self._tell_of_loss(asked)
        fault = disk.fault_for(asked) if disk.faults else None
        if fault is not None:
            self._fail(asked, fault)
            return fault.errno
        if asked.values is not None:
            for sector, value in enumerate(asked.values, asked.low):
                disk.put(sector, value, durable=asked.durable)
        elif asked.operation == "flush":
            disk.sync(asked.mark)
        elif asked.buffer is not None:
            start, length = asked.start, (asked.high - asked.low) * SECTOR
            asked.buffer.view[start : start + length] = b"".join(disk.view[asked.low : asked.high])
        return 0

    def _tell_of_loss(self, asked: Asked) -> int:
        disk = self.disk
        disk.has_untold_loss = False
        disk.failures += 1
        disk.watchers.fault(f"lost-writeback:{asked.operation}")
        if asked.values is not None:
            self.land_partly(asked)
        self._fail_flush(EIO)
        return EIO

    def _fail(self, asked: Asked, fault: DiskFault) -> None:
        if asked.values is not None:
            self.land_partly(asked, is_prefix=fault.kind in {"short", "enospc"})
            # Where the device does both in one, nobody can tell which of the two has failed.
            is_flush = fault.kind == "flush-once" or (fault.kind == "eio" and self._rng.random() < 0.5)
            if asked.durable and is_flush:
                self._fail_flush(fault.errno)
        elif asked.operation == "flush":
            self._fail_flush(fault.errno)
        elif asked.buffer is not None:
            start = asked.start
            for _ in range(asked.low, asked.high):
                asked.buffer.view[start : start + SECTOR] = JUNK
                start += SECTOR

    def _fail_flush(self, error: int) -> None:
        self.flush_error = error
        self.disk.lose()

    def land_partly(self, asked: Asked, *, is_prefix: bool = False) -> None:
        """Do some of what a request asks for."""
        values = asked.values or []
        chance = self._rng.choice((0.0, 0.5, 1.0))
        landing = int(self._rng.random() * len(values))
        for number, value in enumerate(values):
            if number < landing if is_prefix else self._rng.random() < chance:
                self.disk.put(asked.low + number, value, durable=False)

    def _answer(self, asked: Asked, error: int) -> None:
        del self._under_way[asked]
        if not self._under_way and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if asked.operation == "flush":
            self.disk.watchers.point("flush:done", self.process)
        if not self.process.is_dead:
            if error and self.flush_error and (asked.durable or asked.operation == "flush"):
                self.disk.flush_failed_in = max(self.disk.flush_failed_in, asked.attempt)
            asked.done(asked.context, error)

    def die(self) -> None:
        """The process is gone: what was under way lands, or not, or partly, before anyone can open the disk again."""
        for asked in self._under_way:
            if asked.values is not None:
                self.land_partly(asked, is_prefix=False)
        self._under_way.clear()
        self.disk.stuck = [each for each in self.disk.stuck if each.handle is not self]
        self._close()

    def _close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            if self in self.disk.handles:
                self.disk.handles.remove(self)
            if not self.disk.handles:
                self.disk.look_anew()

    def _range(self, offset: int, length: int) -> tuple[int, int]:
        if offset + length > self.size_bytes:
            raise InvariantError(f"{offset}+{length} is beyond the end of {self.disk.name}")
        return offset // SECTOR, (offset + length) // SECTOR


def _sectors(buffer: Buffer, start: int, length: int) -> list[bytes]:
    content = bytes(buffer.view[start : start + length])
    return [content[at : at + SECTOR] for at in range(0, length, SECTOR)]


ENOSPC, EIO = errno.ENOSPC, errno.EIO
