"""Requests that do not fill whole blocks, on devices that only take whole blocks (direct I/O).

A client that asked for the block sizes never sends one; the protocol lets others do so. The slow path: a write of parts of
blocks becomes a write of the whole blocks around it; zeroes become whole blocks of zeroes and two small writes.

What stands around it each side gives for itself. A cache that has lost a write gives what it held before, and tells of it by the
next flush alone: with that laid over the other side, the write would be on neither.
"""

from collections.abc import Callable, Iterator, Mapping

from services.write_cloning.devices.buffers import ZEROES, Buffer, BufferPool
from services.write_cloning.devices.interface import Done
from services.write_cloning.volume.failover import Failover
from services.write_cloning.volume.failures import Failure
from services.write_cloning.volume.reads import Reads
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.room import with_room
from services.write_cloning.volume.route import BOTH, SOURCE, TARGET, Route
from shared.migration.devices import Side
from shared.migration.refusals import InvariantError

AROUND = 16  # what a request waits for: the blocks around an unaligned write to be read


_Step = Callable[[Request], None]


class _Filling:
    """A write that becomes one of whole blocks. `buffer` has room for those, and for the first and the last one once more.

    The whole blocks are the source's, or of the only side there is; the first and the last once more are the target's.
    """

    __slots__ = ("buffer", "failed", "length", "reads", "request", "target_at")

    def __init__(self, request: Request, buffer: Buffer, sides: int) -> None:
        self.request = request
        self.buffer = buffer
        self.length = request.high - request.low
        self.target_at = self.length if sides == BOTH else 0  # where in the buffer the target's begin
        self.reads = 0  # under way
        self.failed: dict[int, Request] = {}  # of a side, one that failed

    def lay_over(self, block: int) -> None:
        """Lay the payload over what each side gave, and make the request one of the whole blocks."""
        request, view, length = self.request, self.buffer.view, self.length
        payload = request.buffer
        if payload is None:
            raise InvariantError("a write of parts of blocks came without its bytes")
        content = payload.view[request.start : request.start + request.length]
        begin, end = request.offset - request.low, request.offset - request.low + request.length
        view[begin:end] = content
        at = self.target_at
        if at and length <= 2 * block:
            view[at + begin : at + end] = content
        elif at:
            view[at + begin : at + block] = content[: block - begin]
            in_last = end - (length - block)
            view[at + block : at + block + in_last] = content[len(content) - in_last :]
        content.release()
        payload.release()  # in the export's stead, which lets go of `buffer` when the request completes
        request.buffer, request.start = self.buffer, 0
        request.offset, request.length = request.low, length

    def pieces(self, side: int, block: int) -> list[tuple[int, int, int]]:
        """What to write to a side: from the first block on, from the buffer's begin on, and how much."""
        at, length = self.target_at, self.length
        if side == SOURCE or not at:
            return [(0, 0, length)]
        if length <= 2 * block:
            return [(0, at, length)]
        return [(0, at, block), (block, block, length - 2 * block), (length - block, at + block, block)]


class _Pieces:
    """One side's share of a write, in several pieces."""

    __slots__ = ("done", "error", "left", "request")

    def __init__(self, request: Request, left: int, done: Done) -> None:
        self.request = request
        self.left = left
        self.error = 0
        self.done = done


class UnalignedWrites:
    """Those of one volume, from their place in the order of writes on: it covers the whole blocks."""

    def __init__(
        self,
        *,
        pool: BufferPool,
        mask: int,
        route: Route,
        reads: Reads,
        failover: Failover,
        done: Mapping[int, Done],
        retire: _Step,
        admit: _Step,
    ) -> None:
        """`done` is what a side calls that is done with a write. `retire` forgets a request, `admit` orders one."""
        self._pool = pool
        self._mask = mask
        self._block = mask + 1
        self._route = route
        self._reads = reads
        self._failover = failover
        self._done = done
        self._retire = retire
        self._admit = admit

    def start(self, request: Request) -> None:
        """Make a write of whole blocks out of one of parts of blocks. It waits for `AROUND` already."""
        if request.kind is not Kind.WRITE:
            self._start_zero(request)
            return
        room_bytes = request.high - request.low + 2 * self._block
        with_room(self._pool, room_bytes, lambda buffer: self._read_around(request, buffer))

    # Nothing else changes these blocks meanwhile, because their write has its place in the order.
    def _read_around(self, request: Request, buffer: Buffer) -> None:
        sides = self._route.write_sides
        filling = _Filling(request, buffer, sides)
        readings = [
            (reading, start)
            for side in (SOURCE, TARGET)
            if sides & side
            for reading, start in self._readings(filling, side)
        ]
        filling.reads = len(readings)
        for reading, start in readings:
            self._reads.start_from(reading, reading.cookie, start)

    def _readings(self, filling: _Filling, side: int) -> Iterator[tuple[Request, int]]:
        block, length, low = self._block, filling.length, filling.request.low
        at, step = (filling.target_at, block) if side == TARGET and filling.target_at else (0, length - block)
        for offset, start in ((0, at), (length - block, at + step))[: 1 if length == block else 2]:
            reading = Request(
                Kind.READ, low + offset, block, self._around_read, side, buffer=filling.buffer, owner=filling
            )
            reading.low, reading.high = reading.offset, reading.offset + block
            yield reading, start

    def _around_read(self, reading: Request) -> None:
        filling: _Filling = reading.owner  # type: ignore[assignment]
        if reading.error:
            filling.failed[reading.cookie] = reading
        filling.reads -= 1
        if not filling.reads:
            self._filled(filling)

    def _filled(self, filling: _Filling) -> None:
        request, route = filling.request, self._route
        request.waiting &= ~AROUND
        # Of the side that reads come from. The other one's failure is like that of a write: it is the routing's business.
        failed = filling.failed.get(SOURCE if route.reads is Side.SOURCE else TARGET)
        if failed is not None and (route.reads is Side.SOURCE or route.write_sides == TARGET):
            if route.write_sides == BOTH:
                self._failover.source_failed(Failure.of_request(Side.SOURCE, failed, failed.error))
            filling.buffer.release()
            request.error = failed.error
            self._failover.advance(request)
            return
        filling.lay_over(self._block)
        self._send(filling)

    def _send(self, filling: _Filling) -> None:
        request, route = filling.request, self._route
        sides = request.sides = route.write_sides
        request.waiting |= sides
        request.started_tick = self._reads.tick
        for side, device in ((SOURCE, route.source), (TARGET, route.target)):
            if not sides & side or side in filling.failed:
                continue
            is_durable = request.durable and route.flush_sides & side != 0
            write = device.write_durably if is_durable else device.write
            pieces = filling.pieces(side, self._block)
            if len(pieces) == 1:
                offset, start, length = pieces[0]
                write(request.low + offset, filling.buffer, start, length, self._done[side], request)
                continue
            share = _Pieces(request, len(pieces), self._done[side])
            for offset, start, length in pieces:
                write(request.low + offset, filling.buffer, start, length, _piece_written, share)
        if SOURCE in filling.failed and sides & SOURCE:
            self._failover.source_done(request, filling.failed[SOURCE].error)
        if TARGET in filling.failed and sides & TARGET:
            self._failover.target_done(request, filling.failed[TARGET].error)

    def _start_zero(self, request: Request) -> None:
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


def _piece_written(share: _Pieces, error: int) -> None:
    share.error = share.error or error
    share.left -= 1
    if not share.left:
        share.done(share.request, share.error)


def is_unaligned(request: Request) -> bool:
    """Whether the request covers parts of blocks; its `low` and `high` are rounded out to whole ones."""
    return request.low != request.offset or request.high != request.offset + request.length


def split_zero(request: Request, mask: int, complete: Callable[[Request], None]) -> list[Request]:
    """The whole blocks of a zero or trim, and small writes of zeroes for its ends."""
    begin, end = request.offset, request.offset + request.length
    inner_begin, inner_end = begin + mask & ~mask, end & ~mask
    if inner_begin >= inner_end:
        pieces = [_zeroes(request, begin, end, complete)]
    else:
        whole = Request(request.kind, inner_begin, inner_end - inner_begin, complete, owner=request)
        whole.low, whole.high = inner_begin, inner_end
        pieces = [whole]
        if begin < inner_begin:
            pieces.append(_zeroes(request, begin, inner_begin, complete))
        if inner_end < end:
            pieces.append(_zeroes(request, inner_end, end, complete))
    for piece in pieces:
        piece.durable, piece.may_punch = request.durable, request.may_punch
        if piece.buffer is not None:
            piece.low, piece.high = piece.offset & ~mask, piece.offset + piece.length + mask & ~mask
    return pieces


def _zeroes(request: Request, begin: int, end: int, complete: Callable[[Request], None]) -> Request:
    ZEROES.retain()
    return Request(Kind.WRITE, begin, end - begin, complete, buffer=ZEROES, owner=request)
