"""Extents of a file that changes while it is asked, and of one in more pieces than we list."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.write_cloning.devices import extents
from services.write_cloning.devices.interface import Extent


def scripted(monkeypatch: pytest.MonkeyPatch, *answers: int) -> None:
    left = list(answers)

    def lseek(_fd: int, _offset: int, _whence: int) -> int:
        answer = left.pop(0)
        if answer < 0:
            raise OSError(-answer, "lseek")
        return answer

    monkeypatch.setattr(os, "lseek", lseek)


def test_data_that_is_punched_while_we_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data is said to begin at 100, but by the time that we ask where it ends there is a hole."""
    scripted(monkeypatch, 100, 100, 200, 300)
    assert extents.find_extents(0, 0, 300) == [
        Extent(0, 100, is_hole=True),
        Extent(100, 100, is_hole=True),
        Extent(200, 100, is_hole=False),
    ]


def test_a_file_cut_short_while_we_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two questions meets the end."""
    scripted(monkeypatch, 100, -errno.ENXIO, 50)
    with pytest.raises(extents.FileShrunkError):
        extents.find_extents(0, 0, 300)


def test_an_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, -errno.EIO)
    with pytest.raises(OSError, match="lseek"):
        extents.find_extents(0, 0, 300)


def test_more_pieces_than_we_list_are_data_from_there_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extents, "QUESTIONS_MAX", 1)
    scripted(monkeypatch, 100, 200)
    assert extents.find_extents(0, 0, 300) == [
        Extent(0, 100, is_hole=True),
        Extent(100, 100, is_hole=False),
        Extent(200, 100, is_hole=False),
    ]


def test_it_always_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a file that is written and punched all the time answers."""
    monkeypatch.setattr(os, "lseek", lambda _fd, offset, _whence: offset)
    found = extents.find_extents(0, 0, 300)
    assert sum(extent.length for extent in found) == 300
    assert not found[-1].is_hole


def fragmented(monkeypatch: pytest.MonkeyPatch, asked: list[int]) -> None:
    """Data and holes of 10 bytes each; every question is noted."""

    def lseek(_fd: int, offset: int, whence: int) -> int:
        asked.append(offset)
        is_data = offset // 10 % 2 == 0
        return offset if is_data is (whence == os.SEEK_DATA) else offset - offset % 10 + 10

    monkeypatch.setattr(os, "lseek", lseek)


@pytest.mark.parametrize("offset", [0, 7, 13])
@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_more_is_asked_than_is_wanted(monkeypatch: pytest.MonkeyPatch, offset: int, most: int) -> None:
    asked: list[int] = []
    fragmented(monkeypatch, asked)
    found = extents.find_extents(0, offset, 10_000, most)
    assert found == extents.find_extents(0, offset, 10 * most - offset % 10)
    asked.clear()
    extents.find_extents(0, offset, 10_000, most)
    assert len(asked) <= most + 1


def test_bounded_answer_is_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "lseek", lambda _fd, offset, _whence: offset)
    assert extents.find_extents(0, 5, 300, 1) == [Extent(5, 300, is_hole=False)]


# ------------------------------------------------------------------ a file that was cut short behind our back

FILE_BYTES = 64 << 10


@pytest.fixture
def short_fd(tmp_path: Path) -> Iterator[int]:
    """16 KiB of data are left of 64 KiB."""
    path = tmp_path / "source.img"
    path.write_bytes(b"x" * FILE_BYTES)
    os.truncate(path, 16 << 10)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("offset", [0, 4 << 10, 16 << 10, 32 << 10])
def test_what_is_missing_is_no_hole(short_fd: int, offset: int) -> None:
    """It was told as one, so the copier put zeroes on the target, and the comparison found both sides equal."""
    with pytest.raises(OSError, match="has shrunk: it ends at byte 16384, before byte 65536") as raised:
        extents.find_extents(short_fd, offset, FILE_BYTES - offset)
    assert raised.value.errno == errno.EIO


def test_what_is_left_is_told_as_ever(short_fd: int) -> None:
    whole = [Extent(0, 16 << 10, is_hole=False)]
    assert extents.find_extents(short_fd, 0, 16 << 10) == whole
    assert extents.find_extents(short_fd, 0, FILE_BYTES, 1) == whole, "the part that can be read"


def test_hole_that_the_file_still_has_at_its_end_is_one(short_fd: int) -> None:
    os.truncate(f"/proc/self/fd/{short_fd}", FILE_BYTES)
    assert extents.find_extents(short_fd, 16 << 10, 48 << 10) == [Extent(16 << 10, 48 << 10, is_hole=True)]
