"""What the kernel's loop devices stand on: a file and the loop device over it are one device.

Blocks, so it is called from a thread. It must not know why someone asks.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from services.write_cloning.devices import filesystems, inodes

LOOPS_DEEP_MAX = 8
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO_BYTES = 232
_LOOP_MAJOR = 7

FileKey = tuple[int, int]  # device and inode numbers, as stat gives them


def loop_over(key: FileKey) -> str | None:
    """The loop device that a file backs, as a path, if there is one."""
    return next((f"/dev/{name}" for name in _attached_loops() if _backing_key(name) == key), None)


def backing_tokens(name: str) -> tuple[str, ...]:
    """What stands behind a loop device, as tokens, the most telling one first; none for any other device.

    The kernel numbers loop devices as they come: after a reboot one of the same number may stand on another file.
    """
    if not Path(f"/sys/block/{name}/loop").is_dir():
        return ()
    try:
        device, inode, _, offset = _ask(name)
    except OSError:  # it may not be asked, or was detached in between
        return ()
    filesystem, marks = _backing_file(name, (device, inode))
    return inodes.tokens(f"loop:{{}}:{inode}:{offset}", device, filesystem, marks)


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


def _backing_file(name: str, key: FileKey) -> tuple[str, tuple[str, ...]]:
    """What identifies the filesystem of the backing file, and what the file has to itself: see `inodes.marks`.

    Empty where its path leads elsewhere by now, or from here, and where we may not read it, who may use the loop device.
    """
    filesystem = ""
    marks: tuple[str, ...] = ()
    try:
        fd = os.open(_backing_path(name), os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return filesystem, marks
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) == key:
            filesystem = filesystems.identifier(fd)
            marks = inodes.marks(fd)
    except OSError:
        pass
    finally:
        os.close(fd)
    return filesystem, marks


def _backing_key(name: str) -> FileKey | None:
    """Ask the loop device itself, since a path may have been moved or replaced; by the path if it may not be asked."""
    try:
        device, inode, _, _ = _ask(name)
    except OSError as error:
        if error.errno == errno.ENXIO:  # detached in between
            return None
        return _key_by_path(name)
    return device, inode


def _ask(name: str) -> tuple[int, int, int, int]:
    """Device and inode of the file behind it, what that stands for where it is a device itself, and the offset in it.

    Raises:
        OSError: it may not be opened; ENXIO where nothing is attached.
    """
    fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO_BYTES))
    finally:
        os.close(fd)
    device, inode, represented, offset = struct.unpack_from("<QQQQ", status)
    return device, inode, represented, offset


def _key_by_path(name: str) -> FileKey | None:
    try:
        status = Path(_backing_path(name)).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
