"""Looks at what the patterns of `host.allowed_devices` cover. Devices are opened for reading alone, and never held."""

import glob
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from services.console.doctor.facts import DeviceLook, PatternLook

LOOKED_AT_MAX = 256  # of one pattern
_SECTOR_BYTES = 512


def look_at_pattern(pattern: str) -> PatternLook:
    """What a pattern covers, as far as it is a local one."""
    if pattern.startswith("nbd"):
        return PatternLook(pattern=pattern, is_remote=True)
    found = list(islice(_covered(pattern), LOOKED_AT_MAX + 1))
    real = [path for path in found if os.path.realpath(path) == path]
    return PatternLook(
        pattern=pattern,
        devices=tuple(_look(path) for path in real[:LOOKED_AT_MAX]),
        links=tuple(path for path in found if os.path.realpath(path) != path),
        has_more=len(found) > LOOKED_AT_MAX,
    )


def _covered(pattern: str) -> Iterator[str]:
    """Files and block devices, links to them included."""
    for path in glob.iglob(pattern, recursive=True, include_hidden=True):  # noqa: PTH207 - a pattern of absolute paths
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116 - a path may have bytes that are no text
        except OSError:
            continue  # gone, or a link that leads nowhere: it covers nothing
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            yield path


def _look(path: str) -> DeviceLook:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return DeviceLook(path=path, trouble=f"cannot be opened: {error.strerror}")
    try:
        status = os.fstat(descriptor)
        size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
    except OSError as error:
        return DeviceLook(path=path, trouble=f"cannot be looked at: {error.strerror}")
    finally:
        os.close(descriptor)
    trouble = "" if os.access(path, os.W_OK) else "cannot be written by this user"
    if not stat.S_ISBLK(status.st_mode):
        return DeviceLook(path=path, trouble=trouble, size_bytes=size_bytes)
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return DeviceLook(
        path=path,
        trouble=trouble,
        use=_use_of(number),
        sector_bytes=_sector_bytes(number),
        size_bytes=size_bytes,
    )


def _sector_bytes(number: str) -> int:
    device = Path(f"/sys/dev/block/{number}")
    for folder in (device, device.resolve().parent):  # a partition's are its disk's
        try:
            return int((folder / "queue/logical_block_size").read_text(encoding="ascii"))
        except OSError:
            continue
    return _SECTOR_BYTES


def _use_of(number: str) -> str:
    """What has a block device, or a part of it, in use; empty when nothing that the kernel tells of."""
    device = Path(f"/sys/dev/block/{number}").resolve()
    parts = [each.parent for each in device.glob("*/partition")]
    whose = {number: "it"} | {_number_of(part): f"its part {part.name}" for part in parts}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        if fields[2] in whose:
            return f"is in use: {whose[fields[2]]} is mounted at {fields[4]}"
    holders = sorted(path.name for path in device.glob("holders/*"))
    return f"is in use by {', '.join(holders)}" if holders else ""


def _number_of(folder: Path) -> str:
    return (folder / "dev").read_text(encoding="ascii").strip()
