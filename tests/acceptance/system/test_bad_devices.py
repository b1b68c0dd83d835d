"""Devices that cannot be a source or target: refused by name, with nothing opened, locked or written."""

import os
import struct
import zlib
from pathlib import Path

import pytest

from tests.acceptance.system.devices import (
    MIB,
    empty_file,
    full_file,
    is_free,
    locked,
    loop_device,
    mounted,
    run,
)
from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.plain_client import Refused
from tests.acceptance.system.unchanged import nothing_changes
from tests.acceptance.system.whole_system import HOST, System


def refused(system: System, source: Path | str, target: Path | str, *watched: Path) -> Refused:
    """Set up in vain, by a plain client; nothing of what is watched changes."""
    with nothing_changes(system, *watched):
        return system.client.refused("setup", "vol1", source=str(source), target=str(target), host=HOST)


def test_same_path_twice_is_refused(system: System, pair: Pair) -> None:
    refusal = refused(system, pair.source, pair.source, pair.source)
    assert refusal.code == "same-device"
    assert str(pair.source) in refusal.message


@pytest.mark.parametrize("way", ["symlink", "hard link", "file URI", "another path", "symlinked folder"])
def test_same_device_by_another_name_is_refused(system: System, pair: Pair, way: str) -> None:
    other: Path | str = pair.source.parent / "other.img"
    match way:
        case "symlink":
            Path(other).symlink_to(pair.source)
        case "hard link":
            Path(other).hardlink_to(pair.source)
        case "file URI":
            other = f"file://{pair.source}"
        case "another path":
            other = f"{pair.source.parent}/../{pair.source.parent.name}//{pair.source.name}"
        case _:
            folder = pair.source.parent / "folder"
            folder.symlink_to(pair.source.parent)
            other = folder / pair.source.name
    refusal = refused(system, pair.source, other, pair.source)
    assert refusal.code == "same-device"
    assert str(other) in refusal.message


@pytest.mark.needs_root
def test_file_and_the_loop_device_over_it_are_the_same(system: System, pair: Pair) -> None:
    with loop_device(pair.target) as device:
        refusal = refused(system, pair.target, device, pair.target, device)
    assert refusal.code == "same-device"


@pytest.mark.needs_root
def test_two_loop_devices_over_one_file_are_the_same(system: System, pair: Pair) -> None:
    with loop_device(pair.target) as one, loop_device(pair.target) as two:
        refusal = refused(system, one, two, one, two)
    assert refusal.code == "same-device"


def test_target_smaller_than_source_is_refused_with_both_sizes(system: System, pair: Pair) -> None:
    os.truncate(pair.target, 4 * MIB - 512)
    refusal = refused(system, pair.source, pair.target, pair.source, pair.target)
    assert refusal.code == "target-too-small"
    assert str(pair.target) in refusal.message
    assert f"{4 * MIB - 512} bytes" in refusal.message
    assert str(4 * MIB) in refusal.message


@pytest.mark.parametrize("side", ["source", "target"])
def test_missing_device_is_refused_by_its_path(system: System, pair: Pair, side: str) -> None:
    devices = {"source": pair.source, "target": pair.target} | {side: pair.source.parent / "missing.img"}
    refusal = refused(system, devices["source"], devices["target"], pair.source, pair.target)
    assert refusal.code == "device-missing"
    assert str(devices[side]) in refusal.message
    assert not devices[side].exists()


def test_dangling_symlink_is_refused_as_missing(system: System, pair: Pair) -> None:
    link = pair.source.parent / "link.img"
    link.symlink_to(pair.source.parent / "missing.img")
    refusal = refused(system, link, pair.target, pair.target)
    assert refusal.code == "device-missing"


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("way", ["directly", "by a symlink", "by dots"])
def test_path_that_the_config_does_not_allow_is_refused(
    system: System, pair: Pair, side: str, way: str
) -> None:
    """Whatever the path looks like: what counts is where it leads."""
    forbidden = full_file(system.folder / "forbidden.img", 4 * MIB, seed=2)
    path = forbidden
    if way == "by a symlink":
        path = pair.source.parent / "link.img"
        path.symlink_to(forbidden)
    elif way == "by dots":
        path = system.data / ".." / forbidden.name
    devices = {"source": pair.source, "target": pair.target} | {side: path}
    refusal = refused(
        system, devices["source"], devices["target"], forbidden, *({pair.source, pair.target} - {path})
    )
    assert refusal.code == "device-not-allowed"
    assert str(path) in refusal.message
    assert f"{system.data}/**" in refusal.message, "what is allowed is not named"


def test_device_that_somebody_has_locked_is_refused(system: System, pair: Pair) -> None:
    with locked(pair.target):
        refusal = refused(system, pair.source, pair.target, pair.source, pair.target)
    assert refusal.code == "device-busy"
    assert str(pair.target) in refusal.message
    assert is_free(pair.target)


@pytest.mark.parametrize("side", ["source", "target"])
def test_device_of_another_migration_is_refused(system: System, pair: Pair, side: str) -> None:
    system.set_up("first", pair.source, pair.target)
    others = {
        "source": full_file(pair.source.parent / "other-source.img", 4 * MIB, seed=3),
        "target": empty_file(pair.source.parent / "other-target.img", 4 * MIB),
    }
    taken = pair.source if side == "source" else pair.target
    devices = others | {side: taken}
    refusal = refused(
        system, devices["source"], devices["target"], pair.source, pair.target, *others.values()
    )
    assert refusal.code == "device-busy"
    assert str(taken) in refusal.message


def test_devices_of_a_migration_that_was_cleaned_up_are_free(system: System, pair: Pair) -> None:
    system.set_up("first", pair.source, pair.target)
    assert not is_free(pair.source)
    assert not is_free(pair.target)
    system.clean_up("first")
    assert is_free(pair.source)
    assert is_free(pair.target)


@pytest.mark.needs_root
@pytest.mark.parametrize("side", ["source", "target"])
def test_mounted_device_is_refused_naming_the_mount(system: System, pair: Pair, side: str) -> None:
    backing = empty_file(pair.source.parent / "backing.img", 8 * MIB)
    run("mkfs.ext4", "-q", str(backing))
    with loop_device(backing) as device, mounted(device, pair.source.parent / "mount") as where:
        devices = {"source": pair.source, "target": pair.target} | {side: device}
        refusal = refused(system, devices["source"], devices["target"], pair.source, pair.target)
    assert refusal.code == "device-busy"
    assert str(device) in refusal.message
    assert f"mounted at {where}" in refusal.message


@pytest.mark.needs_root
def test_file_with_a_loop_device_over_it_is_refused(system: System, pair: Pair) -> None:
    with loop_device(pair.target) as device:
        refusal = refused(system, pair.source, pair.target, pair.source, pair.target)
    assert refusal.code == "device-busy"
    assert str(device) in refusal.message


@pytest.mark.needs_root
@pytest.mark.parametrize("how", ["blockdev", "losetup"])
def test_read_only_block_device_is_refused_as_target(system: System, pair: Pair, how: str) -> None:
    backing = empty_file(pair.source.parent / "backing.img", 4 * MIB)
    with loop_device(backing, *(["--read-only"] if how == "losetup" else [])) as device:
        if how == "blockdev":
            run("blockdev", "--setro", str(device))
        refusal = refused(system, pair.source, device, pair.source)
        if how == "blockdev":
            run("blockdev", "--setrw", str(device))
            assert is_free(device)
    assert refusal.code == "device-read-only"
    assert str(device) in refusal.message


def test_file_that_nobody_may_write_is_refused_as_target(system: System, pair: Pair) -> None:
    pair.target.chmod(0o444)
    refusal = refused(system, pair.source, pair.target, pair.source)
    pair.target.chmod(0o644)
    assert refusal.code == "device-read-only"
    assert str(pair.target) in refusal.message
    assert is_free(pair.target)


@pytest.mark.parametrize("side", ["source", "target"])
def test_zero_length_device_is_refused(system: System, pair: Pair, side: str) -> None:
    empty = empty_file(pair.source.parent / "empty.img", 0)
    devices = {"source": pair.source, "target": pair.target} | {side: empty}
    refusal = refused(system, devices["source"], devices["target"], pair.source, pair.target, empty)
    assert refusal.code == "device-unsuitable"
    assert f"{empty} has a size of zero" in refusal.message


def test_source_size_that_is_no_multiple_of_512_is_refused(system: System, pair: Pair) -> None:
    os.truncate(pair.source, MIB + 100)
    refusal = refused(system, pair.source, pair.target, pair.source, pair.target)
    assert refusal.code == "device-unsuitable"
    assert f"{pair.source} has {MIB + 100} bytes, which is no multiple of 512" in refusal.message


@pytest.mark.needs_root
def test_target_with_larger_sectors_than_the_source_is_refused(system: System, pair: Pair) -> None:
    backings = [empty_file(pair.source.parent / f"{each}.img", 4 * MIB) for each in ("small", "large")]
    with loop_device(backings[0]) as small, loop_device(backings[1], "--sector-size", "4096") as large:
        refusal = refused(system, small, large, small, large)
        system.set_up("other-way-round", large, small)
        system.clean_up("other-way-round")
    assert refusal.code == "device-unsuitable"
    assert str(large) in refusal.message
    assert "4096" in refusal.message
    assert "512" in refusal.message


@pytest.mark.parametrize("kind", ["folder", "pipe", "character device"])
def test_what_is_no_device_is_refused(system: System, pair: Pair, kind: str) -> None:
    path = pair.source.parent / "thing"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path = Path("/dev/null")
    refusal = refused(system, path, pair.target, pair.target)
    assert refusal.code == ("device-not-allowed" if kind == "character device" else "device-unsuitable")
    assert str(path) in refusal.message


@pytest.mark.parametrize("path", ["relative.img", "", "http://host/path", "file://otherhost/x", "/x\0y"])
def test_what_names_no_local_device_is_refused(system: System, pair: Pair, path: str) -> None:
    refusal = refused(system, path, pair.target, pair.target)
    assert refusal.code == "device-unsuitable"


@pytest.mark.parametrize("carries", ["ext4", "gpt", "LVM2_member"])
def test_target_that_carries_something_is_refused_naming_it_unless_told_otherwise(
    system: System, pair: Pair, carries: str
) -> None:
    match carries:
        case "ext4":
            run("mkfs.ext4", "-q", str(pair.target))
        case "gpt":
            with pair.target.open("r+b") as file:
                file.write(_gpt(4 * MIB))
        case _:
            with pair.target.open("r+b") as file:
                file.seek(512)
                file.write(_lvm_label())
    refusal = refused(system, pair.source, pair.target, pair.source, pair.target)
    assert refusal.code == "target-in-use"
    assert carries in refusal.message
    assert "overwrite_target" in refusal.message
    line = ("setup", "vol1", "--source", str(pair.source), "--target", str(pair.target))
    assert "(--overwrite-target)" in system.cutover(*line).stderr
    done = system.cutover(*line, "--overwrite-target")
    assert done.returncode == 0, done.stderr


def _gpt(size_bytes: int) -> bytes:
    """A protective MBR and a GPT header without partitions, as the UEFI specification has them."""
    sectors = size_bytes // 512
    mbr = bytes(446) + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, sectors - 1)
    mbr = mbr.ljust(510, b"\0") + b"\x55\xaa"
    table = bytes(128 * 128)

    def header(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, 1, sectors - 1, 34, sectors - 34,
            b"0123456789abcdef", 2, 128, 128, zlib.crc32(table),
        )  # fmt: skip

    return mbr + header(zlib.crc32(header(0))).ljust(512, b"\0") + table


def _lvm_label() -> bytes:
    """A physical volume's label in sector 1; its checksum is LVM's own CRC-32 over all behind it."""
    behind = struct.pack("<I8s", 32, b"LVM2 001") + b"0123456789abcdefghijklmnopqrstuv"
    behind = behind.ljust(512 - 20, b"\0")
    crc = 0xF597A6CF
    for byte in behind:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    return b"LABELONE" + struct.pack("<QI", 1, crc) + behind
