"""A server's replies out of its byte stream ("Simple reply message", "Structured reply chunk message").

The caller says what it has asked for with `expect`, because a simple reply to a read does not say that data follows.
Data is handed out piece by piece as it arrives, in place: the caller copies each piece to where the read wants it. What
a server sends is checked against what was asked: data outside the request, twice, or too little is a violation.
"""

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.nbd.constants import (
    CHUNK_DONE,
    CHUNK_ERROR_BIT,
    CHUNK_HEADER_BYTES,
    MAX_STATUS_EXTENTS,
    MAX_STRING_BYTES,
    SIMPLE_REPLY_BYTES,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkType,
    Command,
    NbdError,
)
from shared.nbd.errors import FatalPeerError

_SIMPLE = struct.Struct(">IIQ")
_CHUNK = struct.Struct(">IHHQI")
_OFFSET = struct.Struct(">Q")
_HOLE = struct.Struct(">QI")
_ERROR = struct.Struct(">IH")
_EXTENT = struct.Struct(">II")
_WORD = struct.Struct(">I")

MAX_CHUNK_BYTES = 4 + 8 * max(MAX_STATUS_EXTENTS, 1 << 20)
"""The longest payload, other than data, that is taken from a server; the document's own bound for block status."""


class Data(NamedTuple):
    """A piece of a read: `length` bytes at `position` of the buffer belong at `offset` of the export."""

    cookie: int
    offset: int
    position: int
    length: int


class Hole(NamedTuple):
    """A piece of a read that is all zeroes."""

    cookie: int
    offset: int
    length: int


class Extents(NamedTuple):
    """The extents (length, flags) of one metadata context, from the offset that was asked for."""

    cookie: int
    context_id: int
    extents: tuple[tuple[int, int], ...]


class Done(NamedTuple):
    """A request is over. `error` is 0 or an `NbdError`; nothing more comes for this cookie."""

    cookie: int
    error: int
    sentence: str


Reply = Data | Hole | Extents | Done


@dataclass(slots=True)
class _Asked:
    """A request in flight, as far as its replies must be judged."""

    command: int
    offset: int
    length: int
    pieces: list[tuple[int, int]] = field(default_factory=list)
    error: int = 0
    sentence: str = ""

    def cover(self, offset: int, length: int) -> None:
        """Note that content for this range has come."""
        end = offset + length
        if self.command != Command.READ or length < 1:
            raise FatalPeerError("content in a reply where none belongs")
        if offset < self.offset or end > self.offset + self.length:
            raise FatalPeerError(f"content for bytes {offset} to {end}, which were not asked for")
        if any(offset < other_end and other_start < end for other_start, other_end in self.pieces):
            raise FatalPeerError(f"content for bytes {offset} to {end} came twice")
        self.pieces.append((offset, end))

    @property
    def is_short(self) -> bool:
        """Whether a read that claims success lacks content."""
        return self.command == Command.READ and sum(end - start for start, end in self.pieces) < self.length


class ReplyParser:
    """Splits the stream of one connection. Apart from where data is cut, the outcome does not depend on the pieces."""

    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}
        self._data_cookie = 0
        self._data_offset = 0
        self._data_left = 0
        self._ends_with_data = False
        self.needed_bytes = SIMPLE_REPLY_BYTES

    @property
    def outstanding(self) -> int:
        """Requests that were announced and have not been answered in full."""
        return len(self._asked)

    def expect(self, command: int, cookie: int, offset: int, length: int) -> None:
        """Announce a request before it is sent; its cookie must not be in flight."""
        if cookie in self._asked:
            raise ValueError(f"cookie {cookie} is in flight already")
        self._asked[cookie] = _Asked(command, offset, length)

    def parse(self, data: bytes | bytearray | memoryview, start: int, end: int) -> tuple[list[Reply], int]:
        """Take what there is out of `data[start:end]`: it, and where the first incomplete message begins.

        `needed_bytes` is what that message needs in one piece.

        Raises:
            FatalPeerError: the server broke the protocol; replies of this very call are lost with the connection.
        """
        found: list[Reply] = []
        while True:
            if self._data_left:
                start = self._take_data(start, end, found)
                if self._data_left:
                    self.needed_bytes = 1
                    return found, start
            taken = self._take_message(data, start, end, found)
            if not taken:
                return found, start
            start += taken

    # ------------------------------------------------------------------------------------------------------ the stream

    def _take_data(self, start: int, end: int, found: list[Reply]) -> int:
        length = min(self._data_left, end - start)
        if not length:
            return start
        found.append(Data(self._data_cookie, self._data_offset, start, length))
        self._data_offset += length
        self._data_left -= length
        if not self._data_left and self._ends_with_data:
            self._finish(self._data_cookie, found)
        return start + length

    def _take_message(
        self, data: bytes | bytearray | memoryview, start: int, end: int, found: list[Reply]
    ) -> int:
        """Take one header with what belongs to it; how many bytes that were, 0 when it is not complete."""
        self.needed_bytes = SIMPLE_REPLY_BYTES
        if end - start < SIMPLE_REPLY_BYTES:
            return 0
        (magic,) = _WORD.unpack_from(data, start)
        if magic == SIMPLE_REPLY_MAGIC:
            self._take_simple(data, start, found)
            return SIMPLE_REPLY_BYTES
        if magic != STRUCTURED_REPLY_MAGIC:
            raise FatalPeerError(f"a reply with magic {magic:#010x}")
        self.needed_bytes = CHUNK_HEADER_BYTES
        if end - start < CHUNK_HEADER_BYTES:
            return 0
        return self._take_chunk(data, start, end, found)

    def _take_simple(self, data: bytes | bytearray | memoryview, start: int, found: list[Reply]) -> None:
        _, error, cookie = _SIMPLE.unpack_from(data, start)
        asked = self._find(cookie)
        asked.error = error
        if asked.command == Command.READ and not error:
            self._expect_data(cookie, asked, asked.offset, asked.length, is_last=True)
            if asked.length:
                return
        self._finish(cookie, found)

    def _take_chunk(
        self, data: bytes | bytearray | memoryview, start: int, end: int, found: list[Reply]
    ) -> int:
        _, flags, kind, cookie, length = _CHUNK.unpack_from(data, start)
        asked = self._find(cookie)
        is_last = bool(flags & CHUNK_DONE)
        in_one_piece = _OFFSET.size if kind == ChunkType.OFFSET_DATA else length
        if in_one_piece > MAX_CHUNK_BYTES:
            raise FatalPeerError(f"a chunk of type {kind} with {length} bytes")
        self.needed_bytes = CHUNK_HEADER_BYTES + in_one_piece
        if end - start < self.needed_bytes:
            return 0
        at = start + CHUNK_HEADER_BYTES
        if kind == ChunkType.OFFSET_DATA:
            (offset,) = _OFFSET.unpack_from(data, at)
            self._expect_data(cookie, asked, offset, length - _OFFSET.size, is_last=is_last)
            return self.needed_bytes
        self._take_whole_chunk(kind, cookie, asked, bytes(data[at : at + length]), found)
        if is_last:
            self._finish(cookie, found)
        return self.needed_bytes

    def _take_whole_chunk(
        self, kind: int, cookie: int, asked: _Asked, payload: bytes, found: list[Reply]
    ) -> None:
        if kind & CHUNK_ERROR_BIT:
            _note_error(asked, payload)
        elif kind == ChunkType.OFFSET_HOLE and len(payload) == _HOLE.size:
            offset, length = _HOLE.unpack(payload)
            asked.cover(offset, length)
            found.append(Hole(cookie, offset, length))
        elif kind == ChunkType.BLOCK_STATUS and asked.command == Command.BLOCK_STATUS:
            found.append(_unpack_extents(cookie, payload))
        elif kind != ChunkType.NONE or payload:
            raise FatalPeerError(f"an unexpected chunk of type {kind} with {len(payload)} bytes")

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _find(self, cookie: int) -> _Asked:
        asked = self._asked.get(cookie)
        if asked is None:
            raise FatalPeerError(f"a reply to cookie {cookie:#x}, which is not in flight")
        return asked

    def _expect_data(self, cookie: int, asked: _Asked, offset: int, length: int, *, is_last: bool) -> None:
        if asked.length or length:
            asked.cover(offset, length)
        self._data_cookie, self._data_offset, self._data_left = cookie, offset, length
        self._ends_with_data = is_last

    def _finish(self, cookie: int, found: list[Reply]) -> None:
        asked = self._asked.pop(cookie)
        if not asked.error and asked.is_short:
            raise FatalPeerError("a read claims success without all of its content")
        found.append(Done(cookie, asked.error, asked.sentence))


def _note_error(asked: _Asked, payload: bytes) -> None:
    """The first error of a reply is what counts; one of value 0 is told as EINVAL."""
    if len(payload) < _ERROR.size:
        raise FatalPeerError("an error chunk without an error")
    error, length = _ERROR.unpack_from(payload)
    if length > min(len(payload) - _ERROR.size, MAX_STRING_BYTES):
        raise FatalPeerError("an error chunk whose sentence is longer than the chunk")
    if not asked.error:
        asked.error = error or NbdError.EINVAL
        asked.sentence = payload[_ERROR.size : _ERROR.size + length].decode(errors="replace")


def _unpack_extents(cookie: int, payload: bytes) -> Extents:
    context, descriptors = payload[: _WORD.size], payload[_WORD.size :]
    if not descriptors or len(descriptors) % _EXTENT.size:
        raise FatalPeerError(f"a block status chunk of {len(payload)} bytes")
    extents = tuple((length, flags) for length, flags in _EXTENT.iter_unpack(descriptors))
    if any(length == 0 for length, _ in extents):
        raise FatalPeerError("an extent without a length")
    return Extents(cookie, int.from_bytes(context), extents)
