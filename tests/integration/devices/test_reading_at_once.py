"""Reads from the page cache that do not wait, and reads that would have to."""

import os
from pathlib import Path

from services.write_cloning.devices.file import READS_UNTRIED_AFTER_A_MISS
from tests.integration.devices.conftest import OpenDevice
from tests.integration.devices.tools import KIB, pattern

DATA = pattern(64 * KIB)


def filled(path: Path) -> Path:
    with path.open("r+b") as file:
        file.write(DATA)
        os.fsync(file.fileno())
    return path


def forget(path: Path) -> None:
    """Drop the file from the page cache."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


async def test_what_is_in_the_cache_is_read(disk: Path, opened: OpenDevice) -> None:
    device = await opened(filled(disk))
    into = bytearray(5000)
    assert device.read_at_once(3, memoryview(into))
    assert into == DATA[3:5003]


async def test_what_is_not_in_the_cache_is_not_waited_for(disk: Path, opened: OpenDevice) -> None:
    device = await opened(filled(disk))
    forget(disk)
    assert not device.read_at_once(0, memoryview(bytearray(4096)))


async def test_after_a_miss_some_reads_are_not_tried(disk: Path, opened: OpenDevice) -> None:
    device = await opened(filled(disk))
    forget(disk)
    into = memoryview(bytearray(4096))
    assert not device.read_at_once(0, into)
    disk.read_bytes()
    answers = [device.read_at_once(0, into) for _ in range(READS_UNTRIED_AFTER_A_MISS + 2)]
    assert answers == [False] * READS_UNTRIED_AFTER_A_MISS + [True, True]


async def test_direct_reads_always_wait(disk: Path, opened: OpenDevice) -> None:
    device = await opened(filled(disk), direct=True)
    disk.read_bytes()
    assert not device.read_at_once(0, memoryview(bytearray(4096)))


async def test_reads_beyond_the_end_are_left_to_those_who_can_fail(disk: Path, opened: OpenDevice) -> None:
    """A file that has shrunk under us."""
    device = await opened(filled(disk))
    os.truncate(disk, 2048)
    assert not device.read_at_once(0, memoryview(bytearray(4096)))
