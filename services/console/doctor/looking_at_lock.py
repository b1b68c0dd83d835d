"""Who has the lock of a state directory. It is only looked up: to take it for a moment could turn a host away that starts."""

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")
_PID, _INODE = 4, 5  # columns


def holder_of(lock: Path) -> int | None:
    """The process that holds a lock on this file (flock); None where nobody does, or it cannot be seen."""
    try:
        status = lock.stat()
        locks = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in locks:
        fields = line.split()
        if fields[1] == "FLOCK" and _is_of(fields[_INODE], status):
            return int(fields[_PID])
    return None


def _is_of(place: str, status: os.stat_result) -> bool:
    """Whether MAJOR:MINOR:INODE is this file. File systems without a device of their own may tell another number of it here."""
    major, minor, inode = place.split(":")
    device = status.st_dev
    is_there = (int(major, 16), int(minor, 16)) == (os.major(device), os.minor(device))
    return int(inode) == status.st_ino and (is_there or os.major(device) == 0)
