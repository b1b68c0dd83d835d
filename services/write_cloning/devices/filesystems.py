"""What tells one filesystem from every other, whatever number the kernel gives its device at this start.

`st_dev` is that number: disks, device-mapper and loop devices are counted as they come, so a reboot may give it to another
filesystem. What stays is the UUID in the superblock. The kernel hands it out in its own way for each kind of filesystem; of
each kind one way is used, on every kernel the same, so that what was recorded once is found again.

Blocks, so it is called from a thread. It must not know what the answer is compared with.
"""

import fcntl
import os

from services.write_cloning.devices import syscalls

_EXT, _BTRFS, _XFS = 0xEF53, 0x9123683E, 0x58465342

# `f_fsid` is made of the UUID there; of a btrfs subvolume's number, too, since each subvolume counts its inodes for itself.
# XFS, F2FS and others make it of the device's number, tmpfs at random at each mount.
_FSID_FROM_UUID = frozenset({_EXT, _BTRFS})

_XFS_GEOMETRY_BYTES = 112
_XFS_GEOMETRY = (
    2 << 30 | _XFS_GEOMETRY_BYTES << 16 | ord("X") << 8 | 100
)  # the oldest form, which every kernel has
_XFS_UUID_AT = slice(64, 80)


def identifier(fd: int) -> str:
    """What identifies the filesystem of a regular file; empty where nothing is known to stay over a reboot.

    `fd` may be one that permits nothing (O_PATH).

    Raises:
        OSError: the file may not be read.
    """
    magic, fsid = syscalls.filesystem(fd)
    if magic in _FSID_FROM_UUID:
        return f"{fsid:016x}" if fsid else ""
    return _xfs_uuid(fd) if magic == _XFS else ""


def _xfs_uuid(fd: int) -> str:
    asking = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        geometry = fcntl.ioctl(asking, _XFS_GEOMETRY, bytes(_XFS_GEOMETRY_BYTES))
    finally:
        os.close(asking)
    return geometry[_XFS_UUID_AT].hex()
