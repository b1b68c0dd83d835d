"""Keeps a second user away from a file or block device, and says who the first one is.

Two locks are taken, because different programs look at different ones: flock (util-linux, udev) and an open
file description lock over the whole file (qemu, libvirt). Both belong to the open file, not to the process:
they keep out another open in this very process too, and the kernel gives them up only when the file's last
user is gone, which includes requests that are still under way after the process was killed (rule R6).
Classic POSIX locks do neither.

Blocks, so it is called from a thread.
"""

import errno
import fcntl
import os
import struct
from pathlib import Path

_WHOLE_FILE = "hhqqi4x"  # struct flock: type, whence, start, length (0: all), pid
_DENIED = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK})


def try_lock(fd: int, *, writable: bool) -> bool:
    """Take both locks, or neither; False when someone else has one.

    Raises:
        OSError: the filesystem cannot lock.
    """
    kind = fcntl.F_WRLCK if writable else fcntl.F_RDLCK
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_WHOLE_FILE, kind, os.SEEK_SET, 0, 0, 0))
        except OSError:
            fcntl.flock(fd, fcntl.LOCK_UN)
            raise
    except OSError as failure:
        if failure.errno in _DENIED:
            return False
        raise
    return True


def describe_holder(status: os.stat_result) -> str:
    """Say who has a lock, as far as the kernel tells: it names the process that opened the file, if it still lives."""
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        fields = line.split()
        # A line with «->» is of someone who waits; open file description locks name no process, but -1.
        if fields[1] != "->" and fields[5] == inode and int(fields[4]) > 0:
            return _describe_process(int(fields[4]))
    return "another user"


def describe_claim(major: int, minor: int) -> str:
    """Say what has a block device exclusively."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[2] == f"{major}:{minor}":
            return f"it is mounted at {fields[4]}"
    holders = sorted(path.name for path in Path(f"/sys/dev/block/{major}:{minor}/holders").glob("*"))
    if holders:
        return f"it is used by {', '.join(holders)}"
    return "it is mounted, or used by LVM, RAID, swap or another program"


def _describe_process(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return (
            f"process {pid}, which is gone: its requests are still under way, or it left the file to another"
        )
    return f"this process ({name})" if pid == os.getpid() else f"process {pid} ({name})"
