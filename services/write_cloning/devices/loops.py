"""What the kernel's loop devices stand on: a file and the loop device over it are one device.

Blocks, so it is called from a thread. It must not know why someone asks.
"""

import contextlib
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

LOOPS_DEEP_MAX = 8
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO_BYTES = 232
_LOOP_MAJOR = 7

FileKey = tuple[int, int]  # device and inode numbers, as stat gives them


def loop_over(key: FileKey) -> str | None:
    """The loop device that a file backs, as a path, if there is one."""
    return next((f"/dev/{name}" for name in _attached_loops() if _backing_key(name) == key), None)


def roots(status: os.stat_result, deep: int = 0) -> frozenset[tuple[str, int, int]]:
    """Every name of the storage behind a file or block device: itself, and what its loop device stands on.

    Two descriptors with a root in common reach the same bytes.
    """
    if stat.S_ISREG(status.st_mode):
        return frozenset({("file", status.st_dev, status.st_ino)})
    number = status.st_rdev
    found = {("block", os.major(number), os.minor(number))}
    if os.major(number) == _LOOP_MAJOR and deep < LOOPS_DEEP_MAX:
        name = f"loop{os.minor(number)}"
        key = _backing_key(name)
        if key is not None:
            found.add(("file", *key))
            with contextlib.suppress(
                OSError
            ):  # the backing file may be gone, or be of another mount namespace
                found |= roots(Path(_backing_path(name)).stat(), deep + 1)
    return frozenset(found)


def _attached_loops() -> Iterator[str]:
    for folder in sorted(Path("/sys/block").glob("loop*/loop")):
        yield folder.parent.name


def _backing_path(name: str) -> str:
    return Path(f"/sys/block/{name}/loop/backing_file").read_text(encoding="utf-8").rstrip("\n")


def _backing_key(name: str) -> FileKey | None:
    """Ask the loop device itself, since a path may have been moved or replaced; by the path if it may not be asked."""
    try:
        fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return _key_by_path(name)
    try:
        device, inode = struct.unpack_from(
            "<QQ", fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO_BYTES))
        )
    except OSError:  # detached in between
        return None
    finally:
        os.close(fd)
    return device, inode


def _key_by_path(name: str) -> FileKey | None:
    try:
        status = Path(_backing_path(name)).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
