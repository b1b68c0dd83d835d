"""Requests out of a byte stream: what is let through, what is refused and how, and what ends the connection."""

import struct

import pytest

from shared.nbd.constants import MAX_PAYLOAD_BYTES, Command, CommandFlag, NbdError, TransmissionFlag
from shared.nbd.exports import Agreement
from shared.nbd.requests import VERDICTS_AT_ONCE, RequestParser

SIZE = 1 << 30
ALL = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
    | TransmissionFlag.SEND_DF
    | TransmissionFlag.SEND_CACHE
    | TransmissionFlag.SEND_FAST_ZERO
)
INLINE = 64 << 10


def parser(
    *,
    flags: TransmissionFlag = ALL,
    size: int = SIZE,
    block: int = 1,
    structured: bool = True,
    contexts: dict[int, str] | None = None,
) -> RequestParser:
    agreement = Agreement(
        name="v",
        size_bytes=size,
        flags=flags,
        has_structured_replies=structured,
        enforced_block_bytes=block,
        contexts={1: "base:allocation"} if contexts is None else contexts,
    )
    return RequestParser(agreement, INLINE)


def request(
    command: int, offset: int, length: int, *, flags: int = 0, cookie: int = 7, magic: int = 0x25609513
) -> bytes:
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)


def verdict_of(data: bytes, parser: RequestParser) -> int:
    """The error that a single request is answered with at once."""
    if data[6:8] == b"\0\x01":
        data += bytes(int.from_bytes(data[24:28]))  # a write is answered when its payload is through
    found, _ = parser.parse(data, 0, len(data))
    assert found == []
    (verdict,) = parser.verdicts
    assert verdict.cookie == 7
    assert not parser.is_finished
    assert parser.violation is None
    return verdict.error


def test_payload_is_told_by_its_position() -> None:
    data = b"xx" + request(Command.WRITE, 4096, 5) + b"hello" + request(Command.READ, 0, 512, cookie=8)
    found, consumed = parser().parse(data, 2, len(data))
    assert found == [(Command.WRITE, 0, 7, 4096, 5, 30), (Command.READ, 0, 8, 0, 512, 0)]
    assert consumed == len(data)
    assert data[30:35] == b"hello"


def test_incomplete_request_says_what_it_needs() -> None:
    parsing = parser()
    data = request(Command.WRITE, 0, 1000) + bytes(999)
    assert parsing.parse(data, 0, 27) == ([], 0)
    assert parsing.needed_bytes == 28
    assert parsing.parse(data, 0, len(data)) == ([], 0)
    assert parsing.needed_bytes == 1028


def test_long_payload_is_left_to_the_caller() -> None:
    parsing = parser()
    data = request(Command.READ, 0, 1, cookie=1) + request(Command.WRITE, 0, INLINE + 1) + b"payl"
    found, consumed = parsing.parse(data, 0, len(data))
    assert [taken[2] for taken in found] == [1]
    assert parsing.pending == (Command.WRITE, 0, 7, 0, INLINE + 1, 56)
    assert consumed == 56


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (Command.READ, CommandFlag.DF),
        (Command.READ, CommandFlag.FUA),  # pointless, but to be accepted
        (Command.FLUSH, CommandFlag.FUA),
        (Command.TRIM, CommandFlag.FUA),
        (Command.CACHE, 0),
        (Command.WRITE_ZEROES, CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO),
        (Command.BLOCK_STATUS, CommandFlag.REQ_ONE),
    ],
)
def test_flags_that_belong_to_a_command_are_let_through(command: int, flags: int) -> None:
    length = 0 if command == Command.FLUSH else 512
    data = request(command, 0, length, flags=flags)
    assert parser().parse(data, 0, 28) == ([(command, flags, 7, 0, length, 0)], 28)


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (Command.READ, CommandFlag.NO_HOLE),
        (Command.TRIM, CommandFlag.FAST_ZERO),
        (Command.CACHE, CommandFlag.DF),
        (Command.WRITE_ZEROES, CommandFlag.REQ_ONE),
        (Command.BLOCK_STATUS, CommandFlag.DF),
        (Command.READ, 1 << 5),
        (Command.READ, 1 << 15),
        (8, 0),
        (0xFFFF, 0),
    ],
)
def test_flags_and_commands_that_do_not_belong_are_invalid(command: int, flags: int) -> None:
    assert verdict_of(request(command, 0, 512, flags=flags), parser()) == NbdError.EINVAL


@pytest.mark.parametrize(
    ("missing", "command", "flags"),
    [
        (TransmissionFlag.SEND_FLUSH, Command.FLUSH, 0),
        (TransmissionFlag.SEND_TRIM, Command.TRIM, 0),
        (TransmissionFlag.SEND_CACHE, Command.CACHE, 0),
        (TransmissionFlag.SEND_WRITE_ZEROES, Command.WRITE_ZEROES, 0),
        (TransmissionFlag.SEND_FAST_ZERO, Command.WRITE_ZEROES, CommandFlag.FAST_ZERO),
        (TransmissionFlag.SEND_DF, Command.READ, CommandFlag.DF),
        (TransmissionFlag.SEND_FUA, Command.READ, CommandFlag.FUA),
    ],
)
def test_what_was_not_offered_is_invalid(missing: TransmissionFlag, command: int, flags: int) -> None:
    length = 0 if command == Command.FLUSH else 512
    assert (
        verdict_of(request(command, 0, length, flags=flags), parser(flags=ALL & ~missing)) == NbdError.EINVAL
    )


def test_block_status_without_a_context_is_invalid() -> None:
    assert verdict_of(request(Command.BLOCK_STATUS, 0, 512), parser(contexts={})) == NbdError.EINVAL


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (Command.READ, NbdError.EINVAL),
        (Command.TRIM, NbdError.EINVAL),
        (Command.CACHE, NbdError.EINVAL),
        (Command.BLOCK_STATUS, NbdError.EINVAL),
        (Command.WRITE, NbdError.ENOSPC),
        (Command.WRITE_ZEROES, NbdError.ENOSPC),
    ],
)
@pytest.mark.parametrize("offset", [SIZE - 511, SIZE, (1 << 64) - 1])
def test_beyond_the_end(command: int, error: NbdError, offset: int) -> None:
    assert verdict_of(request(command, offset, 512), parser()) == error


@pytest.mark.parametrize("command", [Command.WRITE, Command.WRITE_ZEROES, Command.TRIM])
@pytest.mark.parametrize("flags", [0, CommandFlag.FUA])
def test_read_only_export_permits_no_writing(command: int, flags: int) -> None:
    parsing = parser(flags=ALL | TransmissionFlag.READ_ONLY)
    assert verdict_of(request(command, 0, 512, flags=flags), parsing) == NbdError.EPERM


def test_read_only_export_is_read() -> None:
    parsing = parser(flags=ALL | TransmissionFlag.READ_ONLY)
    assert len(parsing.parse(request(Command.READ, 0, 512), 0, 28)[0]) == 1


@pytest.mark.parametrize(("offset", "length"), [(1, 512), (512, 1), (256, 256)])
@pytest.mark.parametrize("command", [Command.READ, Command.WRITE, Command.TRIM, Command.BLOCK_STATUS])
def test_minimum_block_is_enforced_on_those_who_promised(command: int, offset: int, length: int) -> None:
    assert verdict_of(request(command, offset, length), parser(block=512)) == NbdError.EINVAL
    data = request(command, offset, length) + bytes(length)
    assert len(parser(block=1).parse(data, 0, len(data))[0]) == 1


@pytest.mark.parametrize(
    "command", [Command.READ, Command.WRITE, Command.TRIM, Command.CACHE, Command.WRITE_ZEROES]
)
def test_empty_requests_succeed_without_anyone_doing_anything(command: int) -> None:
    assert verdict_of(request(command, 512, 0), parser()) == 0


def test_status_of_nothing_is_invalid() -> None:
    assert verdict_of(request(Command.BLOCK_STATUS, 0, 0), parser()) == NbdError.EINVAL


def test_flush_is_of_everything() -> None:
    assert verdict_of(request(Command.FLUSH, 512, 0), parser()) == NbdError.EINVAL
    assert verdict_of(request(Command.FLUSH, 0, 512), parser()) == NbdError.EINVAL


@pytest.mark.parametrize(("structured", "error"), [(True, NbdError.EOVERFLOW), (False, NbdError.EINVAL)])
def test_read_of_too_much(structured: bool, error: NbdError) -> None:
    parsing = parser(structured=structured)
    assert verdict_of(request(Command.READ, 0, MAX_PAYLOAD_BYTES + 1), parsing) == error


@pytest.mark.parametrize("command", [Command.TRIM, Command.WRITE_ZEROES, Command.CACHE, Command.BLOCK_STATUS])
def test_without_a_payload_the_length_has_no_limit(command: int) -> None:
    data = request(command, 0, SIZE)
    assert parser().parse(data, 0, 28) == ([(command, 0, 7, 0, SIZE, 0)], 28)


@pytest.mark.parametrize(
    ("length", "flags", "offset", "error"),
    [
        (MAX_PAYLOAD_BYTES + 1, 0, 0, NbdError.EINVAL),
        (512, CommandFlag.DF, 0, NbdError.EINVAL),
        (512, 0, SIZE, NbdError.ENOSPC),
    ],
)
def test_refused_write_is_answered_when_its_payload_is_through(
    length: int, flags: int, offset: int, error: NbdError
) -> None:
    """A client (libnbd) looks up no reply to what it is still sending: with an early one it gives up the connection."""
    parsing = parser()
    assert parsing.parse(request(Command.WRITE, offset, length, flags=flags), 0, 28) == ([], 28)
    left = length
    while left:
        assert parsing.verdicts == []
        piece = bytes(min(left, 1 << 20))
        assert parsing.parse(piece, 0, len(piece)) == ([], len(piece))
        left -= len(piece)
    assert [verdict.error for verdict in parsing.verdicts] == [error]
    assert len(parsing.parse(request(Command.READ, 0, 512), 0, 28)[0]) == 1


def test_disconnect_ends_parsing() -> None:
    parsing = parser()
    data = request(Command.READ, 0, 1) + request(Command.DISC, 0, 0) + request(Command.READ, 0, 1)
    found, consumed = parsing.parse(data, 0, len(data))
    assert (len(found), consumed) == (1, 56)
    assert parsing.is_finished


def test_wrong_magic_ends_parsing_after_what_came_before() -> None:
    parsing = parser()
    data = request(Command.READ, 0, 1) + request(Command.READ, 0, 1, magic=0x21E41C71)
    found, _ = parsing.parse(data, 0, len(data))
    assert len(found) == 1
    assert parsing.violation is not None


@pytest.mark.parametrize("command", [Command.WRITE, 99])
def test_parsing_pauses_after_many_verdicts(command: int) -> None:
    """Nothing is lost by it, and what comes after the refused requests is found."""
    refused = request(command, SIZE, 1) + (b"x" if command == Command.WRITE else b"")
    data = refused * (2 * VERDICTS_AT_ONCE + 1) + request(Command.READ, 0, 512)
    it = parser()
    found, verdicts, at, pauses = [], 0, 0, 0
    while at < len(data):
        requests, at = it.parse(data, at, len(data))
        assert len(it.verdicts) <= VERDICTS_AT_ONCE
        assert it.has_more == (at < len(data))
        verdicts += len(it.verdicts)
        it.verdicts.clear()
        found += requests
        pauses += it.has_more
    assert (verdicts, pauses) == (2 * VERDICTS_AT_ONCE + 1, 2)
    assert found == [(Command.READ, 0, 7, 0, 512, 0)]
