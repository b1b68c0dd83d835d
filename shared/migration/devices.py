"""Names and identities of devices, as records and witnesses carry them. Pure: nothing here opens anything."""

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """The two devices of a migration."""

    SOURCE = "source"
    TARGET = "target"

    @property
    def other(self) -> "Side":
        """The opposite side."""
        return Side.TARGET if self is Side.SOURCE else Side.SOURCE


class DeviceKind(StrEnum):
    """What stands behind a device's URI."""

    FILE = "file"
    BLOCK = "block"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """What tells one device from every other, across reboots and renames.

    `name` is for people: the URI or path that the operator gave. `token` is what is compared: the WWN or serial number of
    a block device where it has one, what a loop device stands on (`loop:…`), the slot of a virtual machine's disk
    (`path:…`), else `dev:MAJOR:MINOR`; `inode:fs-FILESYSTEM:INODE` of a file, or `inode:DEVICE-NUMBER:INODE` where the
    filesystem has nothing that stays over a reboot; the URI of a remote export.
    """

    name: str
    kind: DeviceKind
    token: str
    size_bytes: int
    logical_sector_bytes: int = 512

    def is_same_device(self, other: "DeviceIdentity") -> bool:
        """Whether both describe one and the same device of unchanged size, under whatever name."""
        return (self.kind, self.token, self.size_bytes) == (other.kind, other.token, other.size_bytes)
