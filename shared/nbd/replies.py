"""The answers to requests ("Simple reply message", "Structured reply chunk message"). Hot: runs for every request.

Headers only: a read's data follows its header from wherever it lies. A reader gets structured replies if they were
negotiated, in a single chunk, which is always allowed and satisfies DF; success without a payload is told by a simple
reply, which is the shortest, and errors by an error chunk, which has room for a sentence.
"""

import struct
from collections.abc import Iterable, Sequence

from shared.nbd.constants import (
    CHUNK_DONE,
    MAX_STATUS_EXTENTS,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkType,
)
from shared.nbd.options import shorten

_SIMPLE = struct.Struct(">IIQ")
_CHUNK = struct.Struct(">IHHQI")
_DATA = struct.Struct(">QQIQ")
_ERROR = struct.Struct(">IH")
_STATUS = struct.Struct(">I")
_EXTENT = struct.Struct(">II")

_DONE_DATA = STRUCTURED_REPLY_MAGIC << 32 | CHUNK_DONE << 16 | ChunkType.OFFSET_DATA
_SIMPLE_SUCCESS = SIMPLE_REPLY_MAGIC << 32
_SUCCESS = struct.Struct(">QQ")
_MAX_EXTENT_BYTES = (1 << 32) - 1

_pack_success = _SUCCESS.pack
_pack_data = _DATA.pack
_pack_success_into = _SUCCESS.pack_into
_pack_data_into = _DATA.pack_into
_SUCCESS_BYTES = _SUCCESS.size
_DATA_BYTES = _DATA.size


def success(cookie: int) -> bytes:
    """A request is done. Also the header of a read's data, where structured replies were not negotiated."""
    return _pack_success(_SIMPLE_SUCCESS, cookie)


def data_chunk(cookie: int, offset: int, length: int) -> bytes:
    """The header in front of all `length` bytes that a read asked for; the only chunk of its reply."""
    return _pack_data(_DONE_DATA, cookie, length + 8, offset)


def pack_success_before(buffer: memoryview, position: int, cookie: int) -> int:
    """Like `success`, written into a buffer so that it ends at `position`; where it begins."""
    begin = position - _SUCCESS_BYTES
    _pack_success_into(buffer, begin, _SIMPLE_SUCCESS, cookie)
    return begin


def pack_data_chunk_before(buffer: memoryview, position: int, cookie: int, offset: int, length: int) -> int:
    """Like `data_chunk`, written into a buffer so that it ends at `position`; where it begins."""
    begin = position - _DATA_BYTES
    _pack_data_into(buffer, begin, _DONE_DATA, cookie, length + 8, offset)
    return begin


def empty_success(cookie: int) -> bytes:
    """The structured reply to a read of no bytes: a data chunk must not be empty."""
    return _CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_DONE, ChunkType.NONE, cookie, 0)


def simple_error(cookie: int, error: int) -> bytes:
    """A request failed, where structured replies were not negotiated."""
    return _SIMPLE.pack(SIMPLE_REPLY_MAGIC, error, cookie)


def error_chunk(cookie: int, error: int, sentence: str = "") -> bytes:
    """A request failed; the sentence is for people."""
    message = shorten(sentence)
    payload = _ERROR.pack(error, len(message)) + message
    return _CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_DONE, ChunkType.ERROR, cookie, len(payload)) + payload


def status_chunk(cookie: int, context_id: int, extents: Sequence[tuple[int, int]], *, is_last: bool) -> bytes:
    """The extents (length, flags) of one metadata context; there is one such chunk per context, the last one marked."""
    payload = _STATUS.pack(context_id) + b"".join(_EXTENT.pack(length, flags) for length, flags in extents)
    done = CHUNK_DONE if is_last else 0
    header = _CHUNK.pack(STRUCTURED_REPLY_MAGIC, done, ChunkType.BLOCK_STATUS, cookie, len(payload))
    return header + payload


def fit_extents(extents: Iterable[tuple[int, int]], length: int, *, only_one: bool) -> list[tuple[int, int]]:
    """Make extents fit a block status request (`NBD_REPLY_TYPE_BLOCK_STATUS`).

    Neighbours with the same flags become one, nothing reaches beyond the `length` that was asked for, and there are no
    more than `MAX_STATUS_EXTENTS`, or one.
    """
    most = 1 if only_one else MAX_STATUS_EXTENTS
    fitted: list[tuple[int, int]] = []
    left = min(length, _MAX_EXTENT_BYTES)
    for extent_length, flags in extents:
        taken = min(extent_length, left)
        if taken < 1:
            continue
        if fitted and fitted[-1][1] == flags:
            fitted[-1] = (fitted[-1][0] + taken, flags)
        elif len(fitted) < most:
            fitted.append((taken, flags))
        else:
            break
        left -= taken
    return fitted
