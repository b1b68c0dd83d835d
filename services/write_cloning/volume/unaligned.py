"""Requests that do not fill whole blocks, on devices that only take whole blocks (direct I/O).

A client that asked for the block sizes never sends one; the protocol lets others do so. The slow path: a write of parts of
blocks becomes a write of the whole blocks around it; zeroes become whole blocks of zeroes and two small writes.
"""

from collections.abc import Callable

from services.write_cloning.devices.buffers import ZEROES, Buffer, BufferPool
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.room import with_room
from shared.migration.refusals import InvariantError

AROUND = 16  # what a request waits for: the blocks around an unaligned write to be read


_Step = Callable[[Request], None]


class UnalignedWrites:
    """Those of one volume, from their place in the order of writes on: it covers the whole blocks."""

    def __init__(
        self,
        *,
        pool: BufferPool,
        mask: int,
        read: _Step,
        send: _Step,
        give_up: _Step,
        retire: _Step,
        admit: _Step,
    ) -> None:
        """What the volume does with a request: read, send it to the devices, end it with its error, forget it, order it."""
        self._pool = pool
        self._mask = mask
        self._read = read
        self._send = send
        self._give_up = give_up
        self._retire = retire
        self._admit = admit

    def start(self, request: Request) -> None:
        """Make a write of whole blocks out of one of parts of blocks. It waits for `AROUND` already."""
        if request.kind is not Kind.WRITE:
            self._start_zero(request)
            return
        with_room(self._pool, request.high - request.low, lambda around: self._read_around(request, around))

    def _read_around(self, request: Request, around: Buffer) -> None:
        # As a read of the application would go: from either side while they are in sync, and never from one that has left.
        # Nothing else changes these blocks meanwhile, because their write has its place in the order.
        low, high = request.low, request.high
        reading = Request(Kind.READ, low, high - low, self._around_read, buffer=around, owner=request)
        reading.low, reading.high = low, high
        self._read(reading)

    def _around_read(self, reading: Request) -> None:
        request: Request = reading.owner  # type: ignore[assignment]
        around = reading.buffer
        if around is None:
            raise InvariantError("the blocks around a write were read into nothing")
        request.waiting &= ~AROUND
        if reading.error:
            around.release()
            request.error = reading.error
            self._give_up(request)
        else:
            overlay(request, around)
            self._send(request)

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


def is_unaligned(request: Request) -> bool:
    """Whether the request covers parts of blocks; its `low` and `high` are rounded out to whole ones."""
    return request.low != request.offset or request.high != request.offset + request.length


def overlay(request: Request, around: Buffer) -> None:
    """Make `request` a write of the whole blocks that `around` was read from, with its own payload laid over them.

    The payload's buffer is let go in the export's stead, which lets go of `around` when the request completes.
    """
    payload = request.buffer
    if payload is not None:
        at = request.offset - request.low
        around.view[at : at + request.length] = payload.view[request.start : request.start + request.length]
        payload.release()
    request.buffer = around
    request.start = 0
    request.offset = request.low
    request.length = request.high - request.low


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
