"""What tells one local device from every other: tokens for records, and whether two URIs mean the same storage.

Blocks, so it is called from a thread.
"""

import os
import stat
from pathlib import Path

from services.write_cloning.devices.loops import backing_token, roots
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


def identify(name: str, status: os.stat_result, size_bytes: int, logical_sector_bytes: int) -> DeviceIdentity:
    """Describe an open file or block device; `name` is what the operator calls it."""
    if stat.S_ISREG(status.st_mode):
        kind, token = DeviceKind.FILE, f"inode:{status.st_dev}:{status.st_ino}"
    else:
        kind, token = DeviceKind.BLOCK, _block_token(os.major(status.st_rdev), os.minor(status.st_rdev))
    return DeviceIdentity(
        name=name, kind=kind, token=token, size_bytes=size_bytes, logical_sector_bytes=logical_sector_bytes
    )


def is_same_storage(path: str, other_path: str) -> bool:
    """Whether two paths lead to the same bytes: by a link of either kind, another device node, or a loop device.

    Raises:
        OSError: one of them cannot be looked at.
    """
    return bool(roots(Path(path).stat()) & roots(Path(other_path).stat()))


def _block_token(major: int, minor: int) -> str:
    folder = Path(f"/sys/dev/block/{major}:{minor}")
    partition = _read(folder / "partition")
    # A partition has no name of its own in sysfs; its disk's and its number are as good.
    disk = (folder.resolve().parent if partition else folder).resolve()
    named = _named(disk) or backing_token(disk.name)
    if named is None:
        return f"dev:{major}:{minor}"
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
