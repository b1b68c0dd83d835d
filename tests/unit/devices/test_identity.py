"""By what a block device is known that has no name: the slot it is plugged into, where that stays over a reboot."""

from pathlib import PurePath

import pytest

from services.write_cloning.devices.identity import Found, bus_path
from shared.migration.devices import DeviceIdentity, DeviceKind


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("pci0000:00/0000:00:02.0/virtio1/block/vda", "path:pci0000:00/0000:00:02.0"),
        ("pci0000:00/0000:00:02.0/virtio0/block/vdb", "path:pci0000:00/0000:00:02.0"),
        ("pci0000:00/0000:00:03.0/virtio1/block/vda", "path:pci0000:00/0000:00:03.0"),
        ("platform/LNRO0005:00/virtio0/block/vda", "path:platform/LNRO0005:00"),
        ("vbd-51712/block/xvda", "path:vbd-51712"),
    ],
)
def test_disk_of_a_virtual_machine_is_known_by_its_slot_and_not_by_its_number(folder: str, path: str) -> None:
    assert bus_path(PurePath("/sys/devices", folder)) == path


@pytest.mark.parametrize(
    "folder",
    [
        "virtual/block/nbd0",
        "virtual/block/zram0",
        "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda",
        "pci0000:00/0000:00:04.0/virtio2/host0/target0:0:0/0:0:0:1/block/sdb",
        "virtio0/block/vda",
        "block/vda",
    ],
)
def test_what_hangs_on_a_bus_that_is_numbered_as_it_is_found_has_no_such_name(folder: str) -> None:
    assert bus_path(PurePath("/sys/devices", folder)) is None


def block(token: str, size_bytes: int = 1 << 30) -> DeviceIdentity:
    return DeviceIdentity(name="/dev/vda", kind=DeviceKind.BLOCK, token=token, size_bytes=size_bytes)


def test_two_disks_that_a_reboot_exchanged_are_told_apart() -> None:
    found = Found(block("path:pci0000:00/0000:00:03.0"), ("dev:254:0",))
    assert not found.is_recorded_as(block("path:pci0000:00/0000:00:02.0"))
    assert found.is_recorded_as(block("path:pci0000:00/0000:00:03.0"))


def test_number_that_an_earlier_version_recorded_counts_while_it_fits() -> None:
    found = Found(block("path:pci0000:00/0000:00:03.0"), ("dev:254:0",))
    assert found.is_recorded_as(block("dev:254:0"))
    assert not found.is_recorded_as(block("dev:254:16"))
    assert not found.is_recorded_as(block("dev:254:0", size_bytes=2 << 30))
