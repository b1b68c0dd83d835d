"""What tells a file from the one that had its inode number before: a removed file leaves that number to the next one.

Blocks, so it is called from a thread. It must not know what the answer is compared with.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence

from services.write_cloning.devices import syscalls

_GET_GENERATION = 2 << 30 | 8 << 16 | ord("v") << 8 | 1  # FS_IOC_GETVERSION of linux/fs.h
_GENERATION_BYTES = 8  # said to be a long; filesystems fill in an int


def generation(fd: int) -> bytes:
    """What a filesystem counts or draws anew for each use of an inode; empty where it tells none, as tmpfs.

    `fd` must be one that permits something (no O_PATH).
    """
    with contextlib.suppress(OSError):
        return fcntl.ioctl(fd, _GET_GENERATION, bytes(_GENERATION_BYTES))
    return b""


def tokens(form: str, device: int, filesystem: str, marks: Sequence[str]) -> tuple[str, ...]:
    """The names of a file, the most telling one first; the others are what was recorded where less was known, or told.

    `form` has a place for the filesystem: what identifies it, or the number of its device.
    """
    plain = [form.format(place) for place in ([f"fs-{filesystem}"] if filesystem else []) + [str(device)]]
    return (*(f"{plain[0]}:{mark}" for mark in marks), *plain)


def marks(fd: int) -> tuple[str, ...]:
    """What no other file of this inode number has, the best first; empty where the filesystem tells nothing.

    `fd` may be one that permits nothing (O_PATH).

    Raises:
        OSError: the file may not be read.
    """
    return tuple(_marks(fd))


def _marks(fd: int) -> Iterator[str]:
    asking = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        told = generation(asking)
    finally:
        os.close(asking)
    if told:
        yield f"generation-{struct.unpack_from('=I', told)[0]:08x}"
    born_ns = syscalls.birth_time_ns(fd)
    if born_ns:
        yield f"born-{born_ns}"
