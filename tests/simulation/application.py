"""The application: several writers on one volume, whose reads, writes, zeroes, trims and flushes overlap all the time.

It knows the volume and the model, as a client knows its disk: what it asked for and what was answered.
"""

import asyncio
import errno
import random
from collections.abc import Callable
from typing import Any

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.volume import Volume
from tests.simulation.disk import SECTOR, ZERO
from tests.simulation.model import Flush, Model, Read, Write, stamp
from tests.simulation.process import NOBODY

WRITERS = 3
SECTORS_MAX = 12
BUFFER_SLACK = 4096

_KINDS = (
    Kind.WRITE, Kind.WRITE, Kind.WRITE, Kind.WRITE, Kind.WRITE, Kind.WRITE,
    Kind.READ, Kind.READ, Kind.READ, Kind.READ,
    Kind.FLUSH, Kind.FLUSH, Kind.ZERO, Kind.TRIM, Kind.CACHE,
)  # fmt: skip
_KINDS_BUT_FLUSH = tuple(kind for kind in _KINDS if kind is not Kind.FLUSH)


class Application:
    """`volume` is the one that it is connected to, None while there is none."""

    def __init__(
        self,
        rng: random.Random,
        model: Model,
        answered: Callable[[Request, float], None],
        before_check: Callable[[], None],
        *,
        is_local: bool,
        flushes: bool,
    ) -> None:
        self._rng = rng
        self._moving, self._near = (0.01, 0.98) if is_local else (0.05, 0.6)
        self._kinds = _KINDS if flushes else _KINDS_BUT_FLUSH
        self._durable = 0.15 if flushes else 0.0
        self.model = model
        self._answered = answered
        self._before_check = before_check  # of what was read
        self.volume: Volume | None = None
        self.is_resting = False
        self.outstanding: dict[Request, float] = {}
        self.numbers = 1
        self.counts: dict[str, int] = {}
        self._pool = BufferPool(8 << 20)
        self._left: dict[int, int] = {}  # of each writer: requests of its batch
        self._generation = 0
        self._hot = 0  # the sector that it is interested in
        self._home: int | None = None  # the one to which it comes back

    def begin(self) -> None:
        """Have all writers at work."""
        for writer in range(WRITERS):
            self._later(writer, self._rng.random())

    def move(self) -> None:
        """Be interested in something else from now on."""
        self._hot = int(self._rng.random() * len(self.model.now))

    def visit(self, sector: int, for_s: float) -> None:
        """Be interested in this for a moment."""
        if self._home is None:
            self._home, self._hot = self._hot, sector
            asyncio.get_running_loop().call_later(for_s, self._come_home, context=NOBODY)

    def _come_home(self) -> None:
        if self._home is not None:
            self._hot, self._home = self._home, None

    def rest(self, for_s: float) -> None:
        """Ask for nothing more for a while, so that what is on both sides can be compared."""
        self.is_resting = True
        asyncio.get_running_loop().call_later(for_s, setattr, self, "is_resting", False, context=NOBODY)

    def lose_volume(self) -> None:
        """The connection is gone, and with it every answer."""
        self.volume = None
        self._generation += 1
        self.outstanding.clear()
        for writer in range(WRITERS):
            self._later(writer, self._rng.random())

    def _later(self, writer: int, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(delay_s, self._batch, writer, self._generation, context=NOBODY)

    def _batch(self, writer: int, generation: int) -> None:
        if generation != self._generation:
            return
        if self.volume is None or self.is_resting:
            self._later(writer, 0.5)
            return
        rng = self._rng
        count = rng.choice((1, 1, 2, 4))
        self._left[writer] = count
        if rng.random() < self._moving:
            self.move()
        for _ in range(count):
            self._submit(writer, rng.choice(self._kinds))

    def _range(self) -> tuple[int, int]:
        rng, sectors = self._rng, len(self.model.now)
        length = 1 + int(rng.random() * SECTORS_MAX)
        low = (
            self._hot + int(rng.random() * 8) - 4
            if rng.random() < self._near
            else int(rng.random() * sectors)
        )
        low = min(max(low, 0), sectors - length)
        return low, low + length

    def _submit(self, writer: int, kind: Kind) -> None:
        volume, model, rng = self.volume, self.model, self._rng
        if volume is None:
            self._done_one(writer)
            return
        if kind is Kind.READ and rng.random() < 0.3 and self._read_at_once(volume):
            self._done_one(writer)
            return
        low, high = (0, 0) if kind is Kind.FLUSH else self._range()
        length = (high - low) * SECTOR
        request = Request(kind, low * SECTOR, length, self._complete)
        noted: Write | Read | Flush | None = None
        if kind is Kind.READ:
            request.buffer = self._pool.take(length + BUFFER_SLACK)
            noted = model.begin_read(low, high)
        elif kind is Kind.FLUSH:
            noted = model.begin_flush()
        elif kind is not Kind.CACHE:
            noted = self._prepare_write(request, low, high)
        request.owner = (writer, noted, self._generation)
        self.outstanding[request] = asyncio.get_running_loop().time()
        volume.submit(request)

    def _prepare_write(self, request: Request, low: int, high: int) -> Write:
        rng = self._rng
        if request.kind is Kind.WRITE:
            number, self.numbers = self.numbers, self.numbers + 1
            values = [stamp(number, sector) for sector in range(low, high)]
            request.buffer = self._pool.take(request.length)
            request.buffer.view[: request.length] = b"".join(values)
        else:
            values = [ZERO] * (high - low)
            request.may_punch = request.kind is Kind.TRIM or rng.random() < 0.5
            request.fast = request.kind is Kind.ZERO and rng.random() < 0.2
        request.durable = rng.random() < self._durable
        write = Write(low, values, request.durable)
        self.model.begin_write(write)
        return write

    def _read_at_once(self, volume: Volume) -> bool:
        low, high = self._range()
        into = bytearray((high - low) * SECTOR)
        if not volume.read_at_once(low * SECTOR, memoryview(into)):
            return False
        self._count("read at once", 0)
        self._before_check()
        self.model.end_read(self.model.begin_read(low, high), _split(into))
        return True

    def _complete(self, request: Request) -> None:
        owner: Any = request.owner
        writer, noted, generation = owner
        if generation != self._generation:
            return
        began_at = self.outstanding.pop(request)
        self._count(request.kind.name.lower(), request.error)
        if isinstance(noted, Write):
            self.model.end_write(noted, failed=request.error != 0)
        elif isinstance(noted, Flush):
            if not request.error:
                self.model.end_flush(noted)
        elif isinstance(noted, Read):
            self._end_read(request, noted)
        if request.buffer is not None:
            request.buffer.release()
        self._answered(request, began_at)
        self._done_one(writer)

    def _end_read(self, request: Request, read: Read) -> None:
        self._before_check()
        if request.error or request.buffer is None:
            self.model.end_read(read, None)
        else:
            length = (read.high - read.low) * SECTOR
            self.model.end_read(read, _split(request.buffer.view[request.start : request.start + length]))

    def _done_one(self, writer: int) -> None:
        self._left[writer] -= 1
        if not self._left[writer]:
            rng = self._rng
            self._later(writer, rng.random() * (0.01 if rng.random() < 0.7 else 1.5))

    def _count(self, what: str, error: int) -> None:
        name = f"{what}:{errno.errorcode[error]}" if error else what
        self.counts[name] = self.counts.get(name, 0) + 1


def _split(content: bytearray | memoryview) -> list[bytes]:
    return [bytes(content[at : at + SECTOR]) for at in range(0, len(content), SECTOR)]
