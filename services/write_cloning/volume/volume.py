"""The volume: application I/O on its way to the devices. The hot path of the product.

A write goes to every side of the routing, and is complete when all of them have done it (rule R3). What a request still
waits for stands as bits in `request.waiting`; whoever clears the last bit completes it. There is no future, task or log line
for a request.

The volume acts at once where waiting could lose data: a target that fails leaves the routing in the very call that reports
the failure, and no write is answered any more until the decision about it is durable (`withhold` to `answer_withheld`).
What is to be decided is not the volume's business; it tells its listener. It knows nothing of the journal, the witness, or NBD.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.devices.interface import Device, ZeroMode
from services.write_cloning.volume.failures import TIMEOUT, Failure, FailureListener
from services.write_cloning.volume.ordering import Ranged, WriteOrder
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.unaligned import is_unaligned, overlay, split_zero
from shared.migration.devices import Side
from shared.migration.refusals import InvariantError
from shared.migration.states import IN_SYNC_STATES, Routing, State
from shared.nbd.constants import REGION_CONTEXT, AllocationStatus

# What a request waits for.
SOURCE = 1
TARGET = 2
WITNESS = 4  # a decision that is not durable yet
RECOPY = 8  # the range to be made equal on both sides again
AROUND = 16  # the blocks around an unaligned write to be read

RegionStatus = Callable[[int, int], Sequence[tuple[int, int]]]
"""Lengths and flags of a range as the context `cutover:region` tells them."""

REGION_DIFFERS = 1  # the only flag of that context: the sides are not known to hold the same
_HOLE_AND_ZERO = int(AllocationStatus.HOLE | AllocationStatus.ZERO)

_BIT = {Side.SOURCE: SOURCE, Side.TARGET: TARGET}


class DroppedError(Exception):
    """The target left the routing while something waited for writes to be done."""


class Exclusion:
    """A range that is kept free of application writes; see `Volume.exclude`."""

    __slots__ = ("blockers", "granted", "high", "last_region", "low", "region")

    def __init__(self, low: int, high: int, granted: "asyncio.Future[None]") -> None:
        """Bytes `low` to `high`."""
        self.low = low
        self.high = high
        self.granted = granted
        self.region = self.last_region = self.blockers = 0


class Volume:
    """One volume of fixed size. `submit` takes application requests; the rest is for the migration that owns it."""

    def __init__(
        self,
        *,
        size_bytes: int,
        alignment_bytes: int,
        region_size_bytes: int,
        pool: BufferPool,
        listener: FailureListener,
        source: Device,
        target: Device,
    ) -> None:
        """Begin closed: every request is refused with ESHUTDOWN until `route` and `open`."""
        self.size_bytes = size_bytes
        self.alignment_bytes = alignment_bytes
        self.state: State | None = None
        self.region_status: RegionStatus = nothing_in_sync
        self.reads = self.writes = self.read_bytes = self.write_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._mask = alignment_bytes - 1
        self._order = WriteOrder(region_size_bytes.bit_length() - 1)
        self._pool = pool
        self._listener = listener
        self._source = source
        self._target = target
        self._is_open = False
        self._active: dict[Request, None] = {}  # writes and flushes under way, oldest first
        self._reading: dict[Request, None] = {}  # reads under way that could be answered by the other side
        self._orphans: dict[tuple[Request, int], Buffer | None] = {}  # in a dropped device's hands
        self._held: deque[Request] | None = None  # writes that wait for `release`
        self._idle: asyncio.Future[None] | None = None
        self._flushing: Request | None = None
        self._flush_next: list[Request] = []
        self._withheld = 0
        self._failed_on_source: set[Request] = set()  # whose errors a move of the authority undoes
        self._failed_in_move: list[tuple[Failure, Request | None]] | None = None
        self._tick = 0
        self._reads = Side.SOURCE
        self._write_sides = 0
        self._flush_sides = 0
        self._in_sync = False

    # ------------------------------------------------------------------ for the migration: routing

    def route(self, state: State, routing: Routing) -> None:
        """Send every request from here on by this routing; those under way finish by the one that they were started with."""
        self.state = state
        self._reads = routing.reads
        self._write_sides = _bits(routing.writes)
        self._flush_sides = _bits(routing.flushes)
        both = self._write_sides == SOURCE | TARGET
        self._in_sync = both and state in IN_SYNC_STATES

    def sides_by_authority(self) -> tuple[Side, Side | None]:
        """The side that must have every write, and the one that gets them too, if any."""
        if self._write_sides & SOURCE:
            return Side.SOURCE, Side.TARGET if self._write_sides & TARGET else None
        return Side.TARGET, None

    def replace(self, side: Side, device: Device) -> None:
        """Give a side another device. The side must not be in the routing."""
        if _BIT[side] & (self._write_sides | self._flush_sides):
            raise InvariantError(f"the {side} was replaced while the routing uses it")
        if side is Side.SOURCE:
            self._source = device
        else:
            self._target = device

    def drop(self, side: Side, *, withhold: bool) -> None:
        """Take a side out of the routing at once. Requests no longer wait for it; its buffers stay pinned until it lets go.

        With `withhold`, nothing that has not been answered is answered before `answer_withheld`.
        """
        bit = _BIT[side]
        self._write_sides &= ~bit
        self._flush_sides &= ~bit
        self._in_sync = False
        if self._reads is side:
            self._reads = side.other
        if withhold:
            self._withheld = WITNESS
        rereads = [request for request in self._reading if request.sides == bit]
        for request in rereads:
            self._orphan_read(request, bit)
        for request in list(self._active):
            self._forget_side(request, bit)
        self._failed_on_source.clear()
        if withhold and self._idle is not None and not self._idle.done():
            self._idle.set_exception(DroppedError())

    def withhold(self) -> None:
        """Answer no write or flush until `answer_withheld`: a decision is being made."""
        self._withheld = WITNESS
        for request in self._active:
            request.waiting |= WITNESS

    def answer_withheld(self) -> None:
        """The decision is durable: answer what waited for it."""
        self._withheld = 0
        for request in list(self._active):
            if request.waiting & WITNESS:
                request.waiting &= ~WITNESS
                self._advance(request)

    def begin_move(self) -> None:
        """The authority is about to move to the target: until `end_move` it is open whose errors the target's are."""
        self._failed_in_move = []

    def end_move(self, *, moved: bool) -> None:
        """Moved: the target's errors meanwhile are the application's. Not moved: the target has failed, as ever."""
        failed, self._failed_in_move = self._failed_in_move or [], None
        if moved:
            for _, request in failed:
                if request is not None and not self._withheld:
                    request.waiting &= ~WITNESS
                    self._advance(request)
            return
        for _, request in failed:
            if request is not None:
                request.error = 0
        if failed:
            self._target_failed(failed[0][0])

    def settle(self, request: Request) -> None:
        """Both sides hold the same again where the source failed this write: answer it, with the source's error."""
        if request.waiting & RECOPY:
            request.waiting &= ~RECOPY
            self._advance(request)

    async def quiesce(self) -> None:
        """Start no new write, and wait until none is under way. Ended by `release`, whatever came of it.

        Raises:
            DroppedError: the target failed meanwhile.
        """
        self._held = deque() if self._held is None else self._held
        if self._active:
            self._idle = self._loop.create_future()
            try:
                await self._idle
            finally:
                self._idle = None

    def release(self) -> None:
        """Start the writes that `quiesce` held, in the order of their arrival."""
        held, self._held = self._held, None
        for request in held or ():
            self._admit(request)

    def open(self) -> None:
        """Take requests."""
        self._is_open = True

    async def close(self) -> None:
        """Refuse new requests with ESHUTDOWN, and wait until those under way are answered."""
        self._is_open = False
        self.release()
        while self._active or self._reading:
            self._idle = self._loop.create_future()
            try:
                await self._idle
            finally:
                self._idle = None

    def tick(self) -> int:
        """Count time in the caller's ticks; returns the new count."""
        self._tick += 1
        return self._tick

    def overdue_target_request(self, since_tick: int) -> Request | None:
        """The oldest request that the target has had since before `since_tick`, while another side could do without it."""
        if not self._write_sides & SOURCE:
            return None
        for request in (*self._active, *self._reading):
            on_target = request.waiting & TARGET or (request in self._reading and request.sides == TARGET)
            if on_target and request.started_tick < since_tick:
                return request
        return None

    def target_timed_out(self, request: Request) -> None:
        """Treat a request that the target does not answer as failed."""
        self._target_failed(Failure.of_request(Side.TARGET, request, errno.ETIMEDOUT, TIMEOUT))

    def target_failed(self, failure: Failure) -> None:
        """Take note of a failure that the copier, or a flush of its own, met on the target; acts like a failed write."""
        self._target_failed(failure)

    # ------------------------------------------------------------------ for the copier

    async def exclude(self, low: int, high: int) -> Exclusion:
        """Keep writes out of a range: returns once those before are done; those after wait for `include`."""
        exclusion = Exclusion(low & ~self._mask, -(-high & ~self._mask), self._loop.create_future())
        if not self._order.enter(exclusion):
            await _uncancelled(exclusion.granted, lambda: self.include(exclusion))
        return exclusion

    def include(self, exclusion: Exclusion) -> None:
        """Let writes into the range again."""
        self._start_all(self._order.leave(exclusion))

    # ------------------------------------------------------------------ for the application

    def submit(self, request: Request) -> None:
        """Take one request. It is completed later, from the loop, never from in here."""
        if not self._is_open:
            self._refuse(request, errno.ESHUTDOWN)
            return
        kind = request.kind
        mask = self._mask
        request.low = request.offset & ~mask
        request.high = request.offset + request.length + mask & ~mask
        if kind is Kind.READ:
            self.reads += 1
            self.read_bytes += request.length
            self._read(request)
        elif kind is Kind.FLUSH:
            self._flush(request)
        elif kind is Kind.CACHE:
            self._reader().prefetch(request.offset, request.length, self._advised, request)
        elif request.fast and not self._zeroes_fast():
            self._refuse(request, errno.ENOTSUP)
        else:
            self.writes += 1
            self.write_bytes += request.length
            if self._held is None:
                self._admit(request)
            else:
                self._held.append(request)

    async def block_status(self, offset: int, length: int, context: str) -> Sequence[tuple[int, int]]:
        """Lengths and flags of consecutive extents: of the side that reads come from, or of what is in sync.

        Raises:
            OSError: the device could not be asked.
        """
        if context == REGION_CONTEXT:
            return self.region_status(offset, length)
        extents = await self._reader().extents(offset, length)
        return [(extent.length, _HOLE_AND_ZERO if extent.is_hole else 0) for extent in extents]

    def _zeroes_fast(self) -> bool:
        sides = self._write_sides
        source = not sides & SOURCE or self._source.can_zero_fast
        return source and (not sides & TARGET or self._target.can_zero_fast)

    def _refuse(self, request: Request, error: int) -> None:
        request.error = error
        self._loop.call_soon(request.complete, request)

    def _advised(self, request: Request, error: int) -> None:
        request.error = 0  # advice that nobody takes is no failure
        request.complete(request)

    # ------------------------------------------------------------------ reads

    def _reader(self) -> Device:
        return self._source if self._reads is Side.SOURCE else self._target

    def _read(self, request: Request) -> None:
        low = request.low
        request.start = request.offset - low
        request.started_tick = self._tick
        request.waiting = 0
        self._reading[request] = None
        if self._reads is Side.SOURCE:
            request.sides = SOURCE
            self._source.read(low, request.buffer, 0, request.high - low, self._source_read, request)  # type: ignore[arg-type]
        else:
            request.sides = TARGET
            self._target.read(low, request.buffer, 0, request.high - low, self._target_read, request)  # type: ignore[arg-type]

    def _source_read(self, request: Request, error: int) -> None:
        if request.sides != SOURCE:
            self._release_orphan(request, SOURCE)
            return
        del self._reading[request]
        if error and self._in_sync:
            self._listener.source_failed(Failure.of_request(Side.SOURCE, request, error))
            self._read_other(request, Side.TARGET)
            return
        self._answer_read(request, error)

    def _target_read(self, request: Request, error: int) -> None:
        if request.sides != TARGET:
            self._release_orphan(request, TARGET)
            return
        del self._reading[request]
        if error and self._write_sides & SOURCE:
            if self._in_sync:
                self._target_failed(Failure.of_request(Side.TARGET, request, error))
            self._read_other(request, Side.SOURCE)
            return
        self._answer_read(request, error)

    def _answer_read(self, request: Request, error: int) -> None:
        request.error = error
        request.complete(request)
        if self._idle is not None:
            self._notice_idle()

    def _read_other(self, request: Request, side: Side) -> None:
        device = self._source if side is Side.SOURCE else self._target
        if request.buffer is None:
            raise InvariantError("a read came without a buffer")
        request.sides = 0  # a second failure is the application's
        self._reading[request] = None
        device.read(request.low, request.buffer, 0, request.high - request.low, self._read_again, request)

    def _read_again(self, request: Request, error: int) -> None:
        del self._reading[request]
        self._answer_read(request, error)

    def _orphan_read(self, request: Request, bit: int) -> None:
        # The device may still write into the old buffer, so the read goes on with another one.
        del self._reading[request]
        self._orphans[request, bit] = request.buffer
        request.buffer = self._pool.try_take(request.high - request.low)
        if request.buffer is None:
            request.sides = 0
            self._refuse(request, errno.ENOMEM)
            return
        self._read_other(request, Side.SOURCE if bit == TARGET else Side.TARGET)

    # ------------------------------------------------------------------ writes

    def _admit(self, request: Request) -> None:
        if self._order.enter(request):
            self._start(request)

    def _start_all(self, entries: Iterable[Ranged]) -> None:
        for entry in entries:
            if isinstance(entry, Request):
                self._start(entry)
            elif isinstance(entry, Exclusion) and not entry.granted.done():
                entry.granted.set_result(None)

    def _start(self, request: Request) -> None:
        self._active[request] = None
        if self._mask and is_unaligned(request):
            request.waiting = AROUND | self._withheld
            self._start_unaligned(request)
            return
        request.waiting = self._withheld
        self._send(request)

    def _send(self, request: Request) -> None:
        sides = request.sides = self._write_sides
        request.waiting |= sides
        request.started_tick = self._tick
        durable = self._flush_sides if request.durable else 0
        buffer = request.buffer
        if request.kind is Kind.WRITE and buffer is not None:
            offset, start, length = request.offset, request.start, request.length
            if sides & SOURCE:
                self._source.write(
                    offset, buffer, start, length, durable & SOURCE != 0, self._source_done, request
                )
            if sides & TARGET:
                self._target.write(
                    offset, buffer, start, length, durable & TARGET != 0, self._target_done, request
                )
            return
        self._send_zero(request, sides, durable)

    def _send_zero(self, request: Request, sides: int, durable: int) -> None:
        mode = ZeroMode.PUNCH if request.may_punch else ZeroMode.ALLOCATE
        devices = ((SOURCE, self._source, self._source_done), (TARGET, self._target, self._target_done))
        for bit, device, done in devices:
            if sides & bit:
                device.zero(request.offset, request.length, mode, durable & bit != 0, done, request)

    def _start_unaligned(self, request: Request) -> None:
        """Make a write of whole blocks out of one of parts of blocks. Its range in the order covers the whole blocks."""
        if request.kind is not Kind.WRITE:
            self._start_unaligned_zero(request)
            return
        around = self._pool.try_take(request.high - request.low)
        if around is None:
            self._fail_unstarted(request, errno.ENOMEM)
            return
        # From the authority, which is never dropped while this is under way without another having taken over.
        authority = self._source if self._write_sides & SOURCE else self._target
        authority.read(
            request.low, around, 0, request.high - request.low, self._around_read, (request, around)
        )

    def _around_read(self, context: tuple[Request, Buffer], error: int) -> None:
        request, around = context
        if error:
            around.release()
            self._fail_unstarted(request, error)
            return
        overlay(request, around)
        request.waiting &= ~AROUND
        self._send(request)

    def _start_unaligned_zero(self, request: Request) -> None:
        pieces = split_zero(request, self._mask, self._piece_done)
        self._retire(request)
        request.waiting = len(pieces)
        for piece in pieces:
            self._admit(piece)

    def _piece_done(self, piece: Request) -> None:
        whole: Request = piece.owner  # type: ignore[assignment]
        if piece.buffer is not None:
            piece.buffer.release()
        whole.error = whole.error or piece.error
        whole.waiting -= 1
        if not whole.waiting:
            whole.complete(whole)

    def _fail_unstarted(self, request: Request, error: int) -> None:
        request.error = error
        request.waiting &= WITNESS
        self._advance(request)

    def _source_done(self, request: Request, error: int) -> None:
        waiting = request.waiting
        if error or not waiting & SOURCE:
            self._source_trouble(request, error)
            return
        waiting ^= SOURCE
        request.waiting = waiting
        if not waiting:
            self._finish(request)

    def _target_done(self, request: Request, error: int) -> None:
        waiting = request.waiting
        if error or not waiting & TARGET:
            self._target_trouble(request, error)
            return
        waiting ^= TARGET
        request.waiting = waiting
        if not waiting:
            self._finish(request)
        elif waiting == RECOPY:
            self._advance(request)

    def _advance(self, request: Request) -> None:
        """Go on with a request that waits for less than before."""
        if not request.waiting:
            self._finish(request)
        elif request.waiting == RECOPY:
            failure = Failure.of_request(Side.SOURCE, request, request.error)
            self._listener.sides_differ(failure, request)

    def _finish(self, request: Request) -> None:
        del self._active[request]
        if request.kind is not Kind.FLUSH:
            freed = self._order.leave(request)
            if freed:
                self._start_all(freed)
        request.complete(request)
        if self._idle is not None:
            self._notice_idle()

    def _retire(self, request: Request) -> None:
        del self._active[request]
        self._start_all(self._order.leave(request))

    def _notice_idle(self) -> None:
        reading = bool(self._reading) and not self._is_open
        if not self._active and not reading and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    # ------------------------------------------------------------------ flushes

    def _flush(self, request: Request) -> None:
        # One flush serves all that arrived before it began; those that arrive while it runs share the next.
        self._flush_next.append(request)
        if self._flushing is None:
            self._start_flush()

    def _start_flush(self) -> None:
        flush = Request(Kind.FLUSH, 0, 0, self._flushed, self._flush_next)
        self._flush_next = []
        self._flushing = flush
        self._active[flush] = None
        flush.sides = self._flush_sides
        flush.waiting = flush.sides | self._withheld
        flush.started_tick = self._tick
        for bit, device, done in (
            (SOURCE, self._source, self._source_done),
            (TARGET, self._target, self._target_done),
        ):
            if flush.sides & bit:
                device.flush(done, flush)

    def _flushed(self, flush: Request) -> None:
        self._flushing = None
        waiters: list[Request] = flush.owner  # type: ignore[assignment]
        if self._flush_next:
            self._start_flush()
        for request in waiters:
            request.error = flush.error
            request.complete(request)

    # ------------------------------------------------------------------ trouble

    def _source_trouble(self, request: Request, error: int) -> None:
        if not request.waiting & SOURCE:
            self._release_orphan(request, SOURCE)
            return
        request.waiting ^= SOURCE
        request.error = error
        failure = Failure.of_request(Side.SOURCE, request, error)
        if self._reads is Side.TARGET and self._write_sides & SOURCE:
            self._failed_on_source.add(request)
            self.withhold()
            self._listener.source_lost(failure)
        elif request.kind is Kind.FLUSH:
            if self._write_sides & TARGET:
                self._listener.source_failed(failure)
            self._advance(request)
        elif request.sides & TARGET and self._write_sides & TARGET:
            request.waiting |= RECOPY
            self._advance(request)
        else:
            self._advance(request)

    def _target_trouble(self, request: Request, error: int) -> None:
        if not request.waiting & TARGET:
            self._release_orphan(request, TARGET)
            return
        request.waiting ^= TARGET
        if not self._write_sides & SOURCE:
            request.error = error  # the target is the authority: its errors are the application's
            self._advance(request)
            return
        failure = Failure.of_request(Side.TARGET, request, error)
        if self._failed_in_move is None:
            self._target_failed(failure)
        else:
            request.error = error
            request.waiting |= WITNESS
            self._failed_in_move.append((failure, request))

    def _target_failed(self, failure: Failure) -> None:
        if self._failed_in_move is not None:
            self._failed_in_move.append((failure, None))
        elif self._write_sides & TARGET and self._write_sides & SOURCE:
            self.drop(Side.TARGET, withhold=True)
            self._listener.target_failed(failure)

    def _forget_side(self, request: Request, bit: int) -> None:
        waiting = request.waiting
        if waiting & bit:
            waiting ^= bit
            if request.buffer is not None:
                request.buffer.retain()
            self._orphans[request, bit] = request.buffer
        if bit == SOURCE:
            if request in self._failed_on_source:
                request.error = 0  # the target has it, and holds the authority
        else:
            waiting &= ~RECOPY
        request.waiting = waiting | self._withheld
        self._advance(request)

    def _release_orphan(self, request: Request, bit: int) -> None:
        buffer = self._orphans.pop((request, bit), None)
        if buffer is not None:
            buffer.release()


def everything_in_sync(_offset: int, length: int) -> Sequence[tuple[int, int]]:
    """Both sides hold the same everywhere."""
    return [(length, 0)]


def nothing_in_sync(_offset: int, length: int) -> Sequence[tuple[int, int]]:
    """Nowhere are both sides known to hold the same."""
    return [(length, REGION_DIFFERS)]


def _bits(sides: Iterable[Side]) -> int:
    return sum(_BIT[side] for side in sides)


async def _uncancelled(granted: "asyncio.Future[None]", give_back: Callable[[], None]) -> None:
    """Wait for a grant; a waiter that is cancelled gives it back as soon as it comes."""
    try:
        await asyncio.shield(granted)
    except asyncio.CancelledError:
        granted.add_done_callback(lambda _: give_back())
        raise
