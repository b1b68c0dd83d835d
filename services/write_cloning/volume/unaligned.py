"""Requests that do not fill whole blocks, on devices that only take whole blocks (direct I/O).

A client that asked for the block sizes never sends one; the protocol lets others do so. The slow path: a write of parts of
blocks becomes a write of the whole blocks around it; zeroes become whole blocks of zeroes and two small writes.
"""

from collections.abc import Callable

from services.write_cloning.devices.buffers import ZEROES, Buffer
from services.write_cloning.volume.requests import Kind, Request


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
        whole = Request(request.kind, inner_begin, inner_end - inner_begin, complete, request)
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
    piece = Request(Kind.WRITE, begin, end - begin, complete, request)
    piece.buffer = ZEROES
    piece.buffer.retain()
    return piece
