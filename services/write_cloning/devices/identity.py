"""What tells one local device from every other: tokens for records, and whether two URIs mean the same storage.

A token has to lead to the same storage after a reboot, which numbers disks as it finds them. So no number of a device is in
it where there is anything better. Records of earlier versions have such numbers in their tokens; these count for as long as
they fit, and no longer. Nor has a removed file's successor its token, though it may have its inode number.

Blocks, so it is called from a thread.
"""

import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from services.write_cloning.devices import filesystems, inodes
from services.write_cloning.devices.loops import backing_tokens, roots
from shared.migration.devices import DeviceIdentity, DeviceKind

_NAMES_OF_DEVICES = (
    # In the order of how much they promise; relative to /sys/dev/block/MAJOR:MINOR.
    ("wwid", "wwid"),
    ("wwid", "device/wwid"),
    ("dm", "dm/uuid"),
    ("md", "md/uuid"),
    ("serial", "serial"),
    ("serial", "device/serial"),
)


# Where a disk without a name hangs: its slot stays, the number of the virtio device behind it is counted.
_VIRTIO = re.compile(r"virtio\d+")
_XEN = re.compile(r"vbd-\d+")


@dataclass(frozen=True, slots=True)
class Found:
    """A device as it was found now."""

    identity: DeviceIdentity
    # What would be recorded of it by an earlier version, or where it tells less.
    other_tokens: tuple[str, ...] = ()

    def is_recorded_as(self, recorded: DeviceIdentity) -> bool:
        """Whether it is the device that was recorded, by this version or an earlier one: for what the record says."""
        tokens = (self.identity.token, *self.other_tokens)
        return any(replace(self.identity, token=token).is_same_device(recorded) for token in tokens)


def identify(name: str, fd: int, size_bytes: int, logical_sector_bytes: int) -> Found:
    """Describe a file or block device that is open, at least by O_PATH; `name` is what the operator calls it.

    Raises:
        OSError: it cannot be looked at.
    """
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        kind, form = DeviceKind.FILE, f"inode:{{}}:{status.st_ino}"
        tokens = inodes.tokens(form, status.st_dev, filesystems.identifier(fd), inodes.marks(fd))
    else:
        kind, tokens = DeviceKind.BLOCK, _block_tokens(os.major(status.st_rdev), os.minor(status.st_rdev))
    return Found(
        DeviceIdentity(
            name=name,
            kind=kind,
            token=tokens[0],
            size_bytes=size_bytes,
            logical_sector_bytes=logical_sector_bytes,
        ),
        tokens[1:],
    )


def is_same_storage(path: str, other_path: str) -> bool:
    """Whether two paths lead to the same bytes: by a link of either kind, another device node, or a loop device.

    Raises:
        OSError: one of them cannot be looked at.
    """
    return bool(roots(Path(path).stat()) & roots(Path(other_path).stat()))


def bus_path(disk: PurePath) -> str | None:
    """Where a disk is plugged in, by its folder in sysfs; None where that tells less than its number.

    A disk of a virtual machine may have no serial number, and two of them of the same size differ in nothing but their place.
    Others have names, or hang on buses that are numbered as they are found.
    """
    nodes = disk.parts[3:-2]  # of /sys/devices/…/block/NAME
    if disk.parts[:3] != ("/", "sys", "devices") or disk.parts[-2] != "block" or not nodes:
        return None
    *place, last = nodes
    if _XEN.fullmatch(last):
        return f"path:{'/'.join(nodes)}"
    return f"path:{'/'.join(place)}" if place and _VIRTIO.fullmatch(last) else None


def _block_tokens(major: int, minor: int) -> tuple[str, ...]:
    """The names of a block device, the most telling one first."""
    disk, partition = _disk_of(major, minor)
    number = f"dev:{major}:{minor}"
    if named := _named(disk):
        return (_with_partition(named, partition),)
    if backing := backing_tokens(disk.name):
        return tuple(_with_partition(token, partition) for token in backing)
    path = bus_path(disk)
    return (_with_partition(path, partition), number) if path else (number,)


def _disk_of(major: int, minor: int) -> tuple[Path, str]:
    """The folder of the disk, and the number of the partition where it is one: it has no name of its own in sysfs."""
    folder = Path(f"/sys/dev/block/{major}:{minor}")
    partition = _read(folder / "partition")
    return (folder.resolve().parent if partition else folder).resolve(), partition


def _with_partition(named: str, partition: str) -> str:
    return f"{named}:partition:{partition}" if partition else named


def _named(folder: Path) -> str | None:
    for kind, file in _NAMES_OF_DEVICES:
        value = _read(folder / file)
        if value:
            return f"{kind}:{value}"
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # this kind of device has no such attribute
        return ""
