"""Opens local devices, or says exactly why not.

Everything is checked on a descriptor that is already open, first one that permits nothing (O_PATH: its real
path, and what it is), then the one that will be used, opened through the first. So whoever swaps a file or
a link in between changes nothing: what was checked is what is used. No device is touched by opening before
its path is known to be allowed. A failure anywhere leaves nothing open and no lock behind, even one that
comes after the caller has given up.

All of it blocks, and runs in a thread of its own with a deadline. This file must not know migrations.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from services.write_cloning.devices import errors, identity, locks, loops, syscalls
from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.clerk import Clerk
from services.write_cloning.devices.engine import Engine
from services.write_cloning.devices.file import FileDevice, OpenFile
from shared.migration.devices import DeviceIdentity

_T = TypeVar("_T")

DEADLINE_S = 10.0
SECTOR_BYTES = 512
UDEV_PATIENCE_S = 1.0
UDEV_PAUSE_S = 0.02

_BLKROGET = 0x125E
_BLKSSZGET = 0x1268
_BLKGETSIZE64 = 0x80081272
_FILE_DIRECT_ALIGNMENT_BYTES = 4096  # where the filesystem does not say

# Filesystems that take direct writes to one file side by side, so that io_uring does not queue them: ext4 and XFS.
_PARALLEL_DIRECT_WRITES = frozenset({0xEF53, 0x58465342})


@dataclass(frozen=True, slots=True)
class _Wish:
    name: str  # what the operator said
    path: str
    allowed: AllowedPaths
    writable: bool
    direct: bool | None


async def open_device(
    uri: str,
    *,
    allowed: AllowedPaths,
    engine: Engine,
    writable: bool = True,
    direct: bool | None = None,
    deadline_s: float = DEADLINE_S,
) -> FileDevice:
    """Open and lock a regular file or block device, given as an absolute path or a `file:///` URI.

    Args:
        uri: what to open.
        allowed: the paths that this host may open.
        engine: how its I/O is done.
        writable: false where it will only be read.
        direct: whether I/O passes the page cache by; by default that of block devices does, and that of files not.
        deadline_s: how long the device may take to answer.

    Raises:
        DeviceRefusedError: one of its kinds, each with a code.
        EngineFullError: the engine has no lane left.
    """
    wish = _Wish(uri, local_path(uri), allowed, writable, direct)
    clerk = Clerk(f"open {wish.path}")
    try:
        opened = await clerk.call(lambda: _open(wish), deadline_s=deadline_s, discard=OpenFile.close)
    except TimeoutError:
        raise errors.DeviceHangsError(
            f"{uri} did not answer within {deadline_s:g} s while it was opened"
        ) from None
    finally:
        clerk.dismiss()
    try:
        return FileDevice(opened, engine)
    except BaseException:
        opened.close()
        raise


async def same_device(uri: str, other_uri: str, *, deadline_s: float = DEADLINE_S) -> bool:
    """Whether two local URIs lead to the same storage, by whatever path, link, device node or loop device.

    Raises:
        DeviceRefusedError: one of them is missing, or cannot be looked at.
    """
    path, other_path = local_path(uri), local_path(other_uri)
    try:
        return await _looked(
            lambda: identity.is_same_storage(path, other_path), f"{uri} or {other_uri}", deadline_s
        )
    except OSError as failure:
        raise _refusal(f"{failure.filename}", failure) from failure


async def leads_to(uri: str, recorded: DeviceIdentity, *, deadline_s: float = DEADLINE_S) -> bool:
    """Whether the name of an open device still leads to it: whoever looks for it later has nothing but the name.

    Raises:
        DeviceRefusedError: it does not answer, or cannot be looked at. A name that leads nowhere is no error.
    """
    path = local_path(uri)

    def look() -> identity.Found:
        with _closing(os.open(path, os.O_PATH | os.O_CLOEXEC)) as handle:
            return identity.identify(uri, handle, recorded.size_bytes, recorded.logical_sector_bytes)

    try:
        found = await _looked(look, uri, deadline_s)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as failure:
        raise _refusal(uri, failure) from failure
    return found.is_recorded_as(recorded)


async def written_ns(uri: str, *, deadline_s: float = DEADLINE_S) -> int:
    """When the file of that name was last written to (mtime).

    Raises:
        DeviceRefusedError: it is missing, does not answer, or cannot be looked at.
    """
    try:
        return (await _looked(Path(local_path(uri)).stat, uri, deadline_s)).st_mtime_ns
    except OSError as failure:
        raise _refusal(uri, failure) from failure


async def _looked(look: Callable[[], _T], what: str, deadline_s: float) -> _T:
    """Look at something in a thread, because looking may block for as long as a device hangs."""
    clerk = Clerk(f"look at {what}")
    try:
        return await clerk.call(look, deadline_s=deadline_s)
    except TimeoutError:
        raise errors.DeviceHangsError(f"{what} did not answer within {deadline_s:g} s") from None
    finally:
        clerk.dismiss()


def local_path(uri: str) -> str:
    """Give the absolute path that a URI or path stands for.

    Raises:
        UriNotSupportedError: it means no local file.
        PathNotAbsoluteError: it is relative.
    """
    if "\0" in uri:
        raise errors.UriNotSupportedError("a path with a NUL byte in it names nothing")
    path = uri
    if "://" in uri:
        parts = urlsplit(uri)
        if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or parts.query or parts.fragment:
            raise errors.UriNotSupportedError(
                f"{uri} is neither an absolute path nor a file:///PATH, nbd:// or nbd+unix:// URI"
            )
        path = unquote(parts.path)
    if not path.startswith("/"):
        raise errors.PathNotAbsoluteError(
            f"{uri!r} is no absolute path, which it has to be: the host opens it, perhaps on another machine"
        )
    return path


# ------------------------------------------------------------------------ in the thread


def _open(wish: _Wish) -> OpenFile:
    with ExitStack() as undo:
        try:
            opened = _open_checked(wish, undo)
        except OSError as failure:
            raise _refusal(wish.name, failure) from failure
        undo.pop_all()
        return opened


def _open_checked(wish: _Wish, undo: ExitStack) -> OpenFile:
    with _closing(os.open(wish.path, os.O_PATH | os.O_CLOEXEC)) as handle:
        real_path = _check_allowed(wish, handle)
        status = os.fstat(handle)
        is_block = _check_kind(wish, status)
        is_direct = is_block if wish.direct is None else wish.direct
        if wish.writable:
            _check_writable(wish, status)
        fd = _reopen(wish, handle, status, is_direct=is_direct)
        undo.callback(os.close, fd)
    _lock(wish, fd, status)
    if is_block:
        return _describe_block(wish, fd, status, real_path, is_direct=is_direct)
    _check_no_loop_over(wish, status)
    seeking_fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    undo.callback(os.close, seeking_fd)
    return _describe_file(wish, fd, seeking_fd, real_path, is_direct=is_direct)


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _check_allowed(wish: _Wish, handle: int) -> str:
    real_path = str(Path(f"/proc/self/fd/{handle}").readlink())
    if not wish.allowed.allows(real_path):
        leads = "" if real_path == wish.path else f", which leads to {real_path},"
        raise errors.PathNotAllowedError(f"{wish.name}{leads} is not allowed here; allowed: {wish.allowed}")
    return real_path


def _check_kind(wish: _Wish, status: os.stat_result) -> bool:
    """Tell a block device (true) from a file; nothing else will do."""
    if stat.S_ISBLK(status.st_mode):
        return True
    if not stat.S_ISREG(status.st_mode):
        what = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise errors.NotADeviceError(f"{wish.name} is {what}, neither a regular file nor a block device")
    if status.st_nlink == 0:
        raise errors.DeviceMissingError(f"{wish.name} was deleted while it was opened")
    return False


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def _check_writable(wish: _Wish, status: os.stat_result) -> None:
    # For root the kernel overlooks permissions; whoever took them away meant it all the same.
    if not status.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        raise errors.DeviceReadOnlyError(f"{wish.name} is read-only: nobody has the permission to write it")


def _reopen(wish: _Wish, handle: int, status: os.stat_result, *, is_direct: bool) -> int:
    """Open for use what `handle` stands for, whatever has happened to its path since."""
    flags = (os.O_RDWR if wish.writable else os.O_RDONLY) | os.O_CLOEXEC
    flags |= os.O_DIRECT if is_direct else 0
    if stat.S_ISBLK(status.st_mode):
        flags |= os.O_EXCL  # refused while it is mounted, or part of a volume group or an array
    try:
        return os.open(f"/proc/self/fd/{handle}", flags)
    except OSError as failure:
        if failure.errno == errno.EBUSY:
            claim = locks.describe_claim(os.major(status.st_rdev), os.minor(status.st_rdev))
            raise errors.DeviceBusyError(f"{wish.name} is in use: {claim}") from failure
        if failure.errno == errno.EINVAL and is_direct:
            raise errors.DirectIoError(f"{wish.name} is on a filesystem without direct I/O") from failure
        if wish.writable and failure.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise errors.DeviceReadOnlyError(
                f"{wish.name} cannot be written: {failure.strerror}"
            ) from failure
        raise


def _lock(wish: _Wish, fd: int, status: os.stat_result) -> None:
    # udev takes a shared lock for the moment that it looks at a block device, which is when one appears or
    # was written. There is no event to wait for without waiting for ever.
    patience_s = UDEV_PATIENCE_S if stat.S_ISBLK(status.st_mode) else 0.0
    end = time.monotonic() + patience_s
    while not locks.try_lock(fd, writable=wish.writable):
        if time.monotonic() >= end:
            raise errors.DeviceBusyError(f"{wish.name} is in use: locked by {locks.describe_holder(status)}")
        time.sleep(UDEV_PAUSE_S)


def _check_no_loop_over(wish: _Wish, status: os.stat_result) -> None:
    loop = loops.loop_over((status.st_dev, status.st_ino))
    if loop is not None:
        raise errors.DeviceBusyError(f"{wish.name} is in use: it is the backing file of {loop}")


def _check_size(wish: _Wish, size_bytes: int, block_bytes: int) -> None:
    if size_bytes == 0:
        raise errors.DeviceEmptyError(f"{wish.name} has a size of zero")
    if size_bytes % block_bytes:
        raise errors.DeviceSizeError(
            f"{wish.name} has {size_bytes} bytes, which is no multiple of {block_bytes}"
        )


def _describe_block(
    wish: _Wish, fd: int, status: os.stat_result, real_path: str, *, is_direct: bool
) -> OpenFile:
    sector_bytes = _ask_int(fd, _BLKSSZGET)
    size_bytes: int = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))[0]
    _check_size(wish, size_bytes, SECTOR_BYTES)
    if wish.writable and _ask_int(fd, _BLKROGET):
        raise errors.DeviceReadOnlyError(f"{wish.name} is read-only: the kernel says so of the block device")
    can_write_zeroes = _has_write_zeroes(status)
    return OpenFile(
        fd=fd,
        seeking_fd=-1,
        found=identity.identify(wish.name, fd, size_bytes, sector_bytes),
        real_path=real_path,
        alignment_bytes=sector_bytes if is_direct else 1,
        is_direct=is_direct,
        is_hashed=False,  # the kernel hashes files only
        can_punch=can_write_zeroes,
        can_zero_range_fast=can_write_zeroes,
    )


def _describe_file(wish: _Wish, fd: int, seeking_fd: int, real_path: str, *, is_direct: bool) -> OpenFile:
    alignment_bytes = _direct_alignment(wish, fd) if is_direct else 1
    status = os.fstat(fd)
    _check_size(wish, status.st_size, max(SECTOR_BYTES, alignment_bytes))
    return OpenFile(
        fd=fd,
        seeking_fd=seeking_fd,
        found=identity.identify(wish.name, fd, status.st_size, max(SECTOR_BYTES, alignment_bytes)),
        real_path=real_path,
        alignment_bytes=alignment_bytes,
        is_direct=is_direct,
        is_hashed=not (is_direct and syscalls.filesystem(fd)[0] in _PARALLEL_DIRECT_WRITES),
        # Neither can be tried without a change, if only of the file's times; refused at the first use, if at all.
        can_punch=wish.writable,
        can_zero_range_fast=wish.writable,
    )


def _direct_alignment(wish: _Wish, fd: int) -> int:
    alignment = syscalls.direct_io_alignment(fd)
    if alignment is None:
        return _FILE_DIRECT_ALIGNMENT_BYTES
    if alignment == 0:
        raise errors.DirectIoError(f"{wish.name} is on a filesystem that does no direct I/O on this file")
    return alignment


def _has_write_zeroes(status: os.stat_result) -> bool:
    """Whether the disk, or the disk that a partition is on, has a command for zeroes."""
    device = Path(f"/sys/dev/block/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    for limit in (
        device / "queue/write_zeroes_max_bytes",
        device.resolve().parent / "queue/write_zeroes_max_bytes",
    ):
        with contextlib.suppress(FileNotFoundError):
            return int(limit.read_text(encoding="ascii")) > 0
    return False


def _ask_int(fd: int, request: int) -> int:
    answer: int = struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0]
    return answer


_REFUSALS: dict[int, tuple[type[errors.DeviceRefusedError], str]] = {
    errno.ENOENT: (errors.DeviceMissingError, "does not exist"),
    errno.ENOTDIR: (errors.DeviceMissingError, "does not exist: a part of its path is no folder"),
    errno.ELOOP: (errors.DeviceMissingError, "leads in a circle of symbolic links"),
    errno.ENAMETOOLONG: (errors.DeviceMissingError, "does not exist: its path is too long"),
    errno.ENXIO: (errors.DeviceMissingError, "has no device behind it"),
    errno.ENODEV: (errors.DeviceMissingError, "has no device behind it"),
    errno.ENOMEDIUM: (errors.DeviceMissingError, "has no medium in it"),
    errno.EACCES: (errors.DeviceForbiddenError, "may not be opened by this user"),
    errno.EPERM: (errors.DeviceForbiddenError, "may not be opened by this user"),
    errno.EBUSY: (errors.DeviceBusyError, "is in use"),
    errno.ETXTBSY: (errors.DeviceBusyError, "is in use: it is a program that runs, or swap"),
}


def _refusal(name: str, failure: OSError) -> errors.DeviceRefusedError:
    kind, sentence = _REFUSALS.get(failure.errno or 0, (errors.DeviceUnusableError, ""))
    return kind(f"{name} {sentence or f'cannot be used: {failure.strerror}'}")
