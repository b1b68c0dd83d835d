"""Replies, byte for byte, and the fitting of extents."""

import errno
import struct

import pytest

from shared.nbd import replies
from shared.nbd.constants import MAX_STATUS_EXTENTS, NbdError
from shared.nbd.errors import errno_of, wire_error

COOKIE = 0x1122334455667788


def test_success_is_a_simple_reply() -> None:
    assert replies.success(COOKIE) == struct.pack(">IIQ", 0x67446698, 0, COOKIE)


def test_simple_error_carries_its_number() -> None:
    assert replies.simple_error(COOKIE, 28) == struct.pack(">IIQ", 0x67446698, 28, COOKIE)


def test_data_comes_in_one_final_chunk() -> None:
    expected = struct.pack(">IHHQIQ", 0x668E33EF, 1, 1, COOKIE, 4096 + 8, 1 << 40)
    assert replies.data_chunk(COOKIE, 1 << 40, 4096) == expected


def test_read_of_nothing_has_a_chunk_of_type_none() -> None:
    assert replies.empty_success(COOKIE) == struct.pack(">IHHQI", 0x668E33EF, 1, 0, COOKIE, 0)


def test_error_chunk_carries_a_sentence() -> None:
    expected = struct.pack(">IHHQIIH", 0x668E33EF, 1, 0x8001, COOKIE, 10, 5, 4) + b"gone"
    assert replies.error_chunk(COOKIE, 5, "gone") == expected


def test_sentence_is_cut_to_a_string_at_a_whole_character() -> None:
    chunk = replies.error_chunk(COOKIE, 5, "é" * 5000)
    (length,) = struct.unpack_from(">H", chunk, 24)
    assert length == 4096
    assert chunk[26:].decode() == "é" * 2048
    assert len(replies.error_chunk(COOKIE, 5, "x" + "é" * 5000)[26:]) == 4095


def test_status_chunk_lists_extents_and_marks_the_last_context() -> None:
    chunk = replies.status_chunk(COOKIE, 2, [(512, 0), (1024, 3)], is_last=False)
    assert chunk == struct.pack(">IHHQIIIIII", 0x668E33EF, 0, 5, COOKIE, 20, 2, 512, 0, 1024, 3)
    assert replies.status_chunk(COOKIE, 2, [(512, 0)], is_last=True)[4:6] == b"\0\1"


@pytest.mark.parametrize(
    ("extents", "length", "only_one", "fitted"),
    [
        ([(512, 0), (512, 3)], 2048, False, [(512, 0), (512, 3)]),
        ([(512, 0), (9999, 3)], 1024, False, [(512, 0), (512, 3)]),
        ([(512, 0), (512, 0), (512, 3)], 4096, False, [(1024, 0), (512, 3)]),
        ([(512, 0), (512, 3)], 2048, True, [(512, 0)]),
        ([(512, 0), (512, 0), (512, 3)], 768, True, [(768, 0)]),
        ([(0, 3), (1 << 40, 0)], 0xFFFFFFFF, False, [(0xFFFFFFFF, 0)]),
        ([(512, 0), (512, 3)], 512, False, [(512, 0)]),
    ],
)
def test_extents_are_fitted_to_the_request(
    extents: list[tuple[int, int]], length: int, only_one: bool, fitted: list[tuple[int, int]]
) -> None:
    assert replies.fit_extents(extents, length, only_one=only_one) == fitted


def test_number_of_extents_is_bounded() -> None:
    endless = [(1, index & 1) for index in range(MAX_STATUS_EXTENTS + 10)]
    assert len(replies.fit_extents(endless, 1 << 20, only_one=False)) == MAX_STATUS_EXTENTS


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errno.EIO, NbdError.EIO),
        (errno.EDQUOT, NbdError.ENOSPC),
        (errno.EFBIG, NbdError.ENOSPC),
        (errno.EROFS, NbdError.EPERM),
        (errno.ESHUTDOWN, NbdError.ESHUTDOWN),
        (errno.ETIMEDOUT, NbdError.EIO),
        (errno.EOVERFLOW, NbdError.EIO),
        (99999, NbdError.EIO),
    ],
)
def test_errno_on_the_wire(error: int, told: NbdError) -> None:
    assert wire_error(error) == told


def test_unsupported_is_kept_for_fast_zeroes() -> None:
    assert wire_error(errno.EOPNOTSUPP) == NbdError.EINVAL
    assert wire_error(errno.EOPNOTSUPP, may_be_unsupported=True) == NbdError.ENOTSUP


@pytest.mark.parametrize("told", list(NbdError))
def test_every_wire_error_has_its_errno(told: NbdError) -> None:
    assert errno_of(told) == int(told)


def test_unexpected_wire_error_is_invalid() -> None:
    assert errno_of(4711) == errno.EINVAL
