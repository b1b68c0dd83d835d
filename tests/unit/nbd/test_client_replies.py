"""Replies out of a server's byte stream: data in pieces, and servers that lie."""

import struct

import pytest

from shared.nbd import replies
from shared.nbd.client_replies import Data, Done, Extents, Hole, Reply, ReplyParser
from shared.nbd.constants import Command
from shared.nbd.errors import FatalPeerError


def parse(parser: ReplyParser, data: bytes) -> list[Reply]:
    found, consumed = parser.parse(data, 0, len(data))
    assert consumed == len(data)
    return found


def chunk(kind: int, payload: bytes, *, done: bool = True, cookie: int = 7) -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, int(done), kind, cookie, len(payload)) + payload


def reading(offset: int = 4096, length: int = 1024) -> ReplyParser:
    parser = ReplyParser()
    parser.expect(Command.READ, 7, offset, length)
    return parser


def test_simple_reply_to_a_read_is_followed_by_its_data() -> None:
    parser = reading(length=5)
    found = parse(parser, replies.success(7) + b"hello")
    assert found == [Data(7, 4096, 16, 5), Done(7, 0, "")]
    assert parser.outstanding == 0


def test_simple_error_to_a_read_is_not() -> None:
    assert parse(reading(), replies.simple_error(7, 5)) == [Done(7, 5, "")]


def test_data_is_handed_out_as_it_comes() -> None:
    parser = reading(length=10)
    message = replies.data_chunk(7, 4096, 10) + b"0123456789"
    assert parser.parse(message, 0, 31) == ([Data(7, 4096, 28, 3)], 31)
    assert parser.needed_bytes == 1
    assert parser.parse(message, 31, len(message)) == ([Data(7, 4099, 31, 7), Done(7, 0, "")], len(message))


def test_reply_in_several_chunks_with_a_hole() -> None:
    parser = reading(length=1024)
    message = chunk(1, struct.pack(">Q", 4608) + bytes(512), done=False)
    message += chunk(2, struct.pack(">QI", 4096, 512), done=False) + chunk(0, b"")
    assert parse(parser, message) == [Data(7, 4608, 28, 512), Hole(7, 4096, 512), Done(7, 0, "")]


def test_error_chunk_gives_number_and_sentence() -> None:
    assert parse(reading(), replies.error_chunk(7, 5, "gone")) == [Done(7, 5, "gone")]


def test_error_with_an_offset_and_unknown_kinds_of_errors_count_as_errors() -> None:
    payload = struct.pack(">IH3sQ", 5, 3, b"bad", 4096)
    assert parse(reading(), chunk(0x8002, payload)) == [Done(7, 5, "bad")]
    assert parse(reading(), chunk(0x8FFF, payload)) == [Done(7, 5, "bad")]


def test_extents_of_each_context() -> None:
    parser = ReplyParser()
    parser.expect(Command.BLOCK_STATUS, 7, 0, 1024)
    message = replies.status_chunk(7, 1, [(512, 0), (512, 3)], is_last=False)
    message += replies.status_chunk(7, 2, [(1024, 1)], is_last=True)
    expected = [Extents(7, 1, ((512, 0), (512, 3))), Extents(7, 2, ((1024, 1),)), Done(7, 0, "")]
    assert parse(parser, message) == expected


@pytest.mark.parametrize(
    "message",
    [
        b"\0" * 16,
        replies.success(8),  # a cookie that is not in flight
        chunk(1, struct.pack(">Q", 0) + bytes(8)),  # before the range
        chunk(1, struct.pack(">Q", 4096) + bytes(1025)),  # beyond it
        chunk(1, struct.pack(">Q", 4096)),  # no data at all
        chunk(1, struct.pack(">Q", 4096) + bytes(1023)),  # too little, and done
        chunk(2, struct.pack(">QI", 4096, 0)),
        chunk(2, b"short"),
        chunk(3, b""),
        chunk(0, b"x"),
        chunk(5, struct.pack(">III", 1, 512, 0)),  # a status that nobody asked for
        chunk(0x8001, b"shrt"),
        chunk(0x8001, struct.pack(">IH", 5, 9)),  # the sentence is longer than the chunk
        struct.pack(">IHHQI", 0x668E33EF, 1, 0x8001, 7, 1 << 30),
    ],
)
def test_nonsense_is_fatal(message: bytes) -> None:
    with pytest.raises(FatalPeerError):
        reading().parse(message, 0, len(message))


def test_content_that_comes_twice_is_fatal() -> None:
    twice = chunk(2, struct.pack(">QI", 4096, 512), done=False) * 2
    with pytest.raises(FatalPeerError):
        reading().parse(twice, 0, len(twice))


@pytest.mark.parametrize(
    "descriptors", [b"", bytes(8), struct.pack(">I", 512), struct.pack(">III", 512, 0, 512)]
)
def test_malformed_status_is_fatal(descriptors: bytes) -> None:
    parser = ReplyParser()
    parser.expect(Command.BLOCK_STATUS, 7, 0, 1024)
    message = chunk(5, struct.pack(">I", 1) + descriptors)
    with pytest.raises(FatalPeerError):
        parser.parse(message, 0, len(message))


def test_cookie_in_flight_is_not_used_again() -> None:
    with pytest.raises(ValueError, match="in flight"):
        reading().expect(Command.READ, 7, 0, 1)
