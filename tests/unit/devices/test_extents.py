"""Extents of a file that changes while it is asked, and of one in more pieces than we list."""

import errno
import os

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
    scripted(monkeypatch, 100, -errno.ENXIO)
    assert extents.find_extents(0, 0, 300) == [
        Extent(0, 100, is_hole=True),
        Extent(100, 200, is_hole=False),
    ]


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
