"""Finds the data and the holes of a file, with lseek's SEEK_DATA and SEEK_HOLE.

lseek moves a position, so it works on a descriptor of its own. What it says is true of the moment; a write
that is under way may turn a hole into data. Beyond the end of a file that was cut short behind our back there is
no hole, though lseek answers as if there were: reads fail there. This file must not know engines or lanes.
"""

import errno
import os

from services.write_cloning.devices.interface import Extent

QUESTIONS_MAX = 65536
"""A file in more pieces than this, or one that changes faster than it answers, is said to be data from there on."""


class FileShrunkError(OSError):
    """The file ends before the range that was asked for does. Its errno is EIO, as a read of what is missing says."""

    def __init__(self, ends_at: int, asked_to: int) -> None:
        """Say where it ends, and where it should."""
        super().__init__(errno.EIO, f"the file has shrunk: it ends at byte {ends_at}, before byte {asked_to}")


def find_extents(fd: int, offset: int, length: int, most: int | None = None) -> list[Extent]:
    """List data and holes of a range, in order and without gaps. Blocks; moves the descriptor's position.

    With `most`, there are no more than so many, and at least one; they may end before the range does. About so many
    questions are asked.

    Raises:
        FileShrunkError: the file ends within the range, or before it.
        OSError: the file could not be asked.
    """
    end = offset + length
    extents: list[Extent] = []
    for _ in range(QUESTIONS_MAX if most is None else most):
        data_at = _seek(fd, offset, end, os.SEEK_DATA)
        if data_at > offset:
            extents.append(Extent(offset, data_at - offset, is_hole=True))
            offset = data_at
        if offset == end or len(extents) == most:
            return extents
        hole_at = _seek(fd, offset, end, os.SEEK_HOLE)
        if hole_at > offset:  # or else the data was punched since we were told of it
            extents.append(Extent(offset, hole_at - offset, is_hole=False))
            offset = hole_at
        if offset == end or len(extents) == most:
            return extents
    if most is None or not extents:
        extents.append(Extent(offset, end - offset, is_hole=False))
    return extents


def _seek(fd: int, offset: int, end: int, whence: int) -> int:
    try:
        return min(os.lseek(fd, offset, whence), end)
    except OSError as failure:
        if failure.errno != errno.ENXIO:
            raise
    # No data, or no hole, from here to the end of the file, wherever that is.
    ends_at = os.lseek(fd, 0, os.SEEK_END)
    if ends_at < end:
        raise FileShrunkError(ends_at, end)
    return end
