"""What `blkid` finds on a device, and what becomes of every way in which it can fail."""

import os
from pathlib import Path

import pytest

from services.write_cloning.devices.errors import SignatureProbeError, SignatureToolMissingError
from services.write_cloning.devices.signatures import Signature, find_signature
from tests.integration.devices.conftest import AttachLoop, OpenDevice
from tests.integration.devices.tools import MIB, run

pytestmark = pytest.mark.needs_root


@pytest.fixture
def fake_blkid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of `blkid`; to be filled in."""
    program = folder / "bin" / "blkid"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


async def find(path: Path, **options: float) -> Signature | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return await find_signature(fd, **options)
    finally:
        os.close(fd)


async def test_nothing(disk: Path) -> None:
    assert await find(disk) is None


async def test_a_filesystem(disk: Path) -> None:
    run("mkfs.ext4", "-q", "-L", "precious", str(disk))
    signature = await find(disk)
    assert signature == Signature("ext4", "filesystem", "precious")
    assert str(signature) == "a filesystem (ext4) labelled 'precious'"


async def test_a_partition_table(disk: Path) -> None:
    run("bash", "-c", f"echo , | sfdisk --quiet {disk}")
    assert await find(disk) == Signature("dos", "partition table")


async def test_swap(disk: Path) -> None:
    run("mkswap", str(disk))
    found = await find(disk)
    assert found is not None
    assert str(found) == "swap space (swap)"


@pytest.mark.parametrize(
    ("type_name", "usage", "told"),
    [
        ("LVM2_member", "raid", "an LVM physical volume (LVM2_member)"),
        ("linux_raid_member", "raid", "a member of a RAID or volume group (linux_raid_member)"),
        ("crypto_LUKS", "crypto", "an encrypted volume (crypto_LUKS)"),
        ("gpt", "partition table", "a partition table (gpt)"),
        ("bcache", "other", "a signature (bcache)"),
    ],
)
def test_what_is_found_is_told_in_an_operators_words(type_name: str, usage: str, told: str) -> None:
    assert str(Signature(type_name, usage)) == told


async def test_on_an_open_device_direct_locked_and_exclusive(
    disk: Path, attach_loop: AttachLoop, opened: OpenDevice
) -> None:
    run("mkfs.ext4", "-q", str(disk))
    device = await opened(attach_loop(disk))
    found = await find_signature(device.fd)
    assert found is not None
    assert found.type_name == "ext4"


async def test_the_open_descriptor_is_asked_not_its_name(disk: Path, folder: Path) -> None:
    run("mkfs.ext4", "-q", str(disk))
    fd = os.open(disk, os.O_RDONLY)
    disk.rename(folder / "elsewhere.img")
    disk.write_bytes(bytes(MIB))
    found = await find_signature(fd)
    os.close(fd)
    assert found is not None
    assert found.type_name == "ext4"


async def test_contradicting_signatures_count_as_one(disk: Path, fake_blkid: Path) -> None:
    fake_blkid.write_text("#!/bin/sh\nexit 8\n")
    found = await find(disk)
    assert found is not None
    assert str(found) == "several signatures (which contradict each other)"


async def test_blkid_is_missing(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.write_cloning.devices.signatures._SYSTEM_FOLDERS", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SignatureToolMissingError, match="util-linux") as caught:
        await find(disk)
    assert caught.value.code == "blkid-missing"


async def test_blkid_that_cannot_read_is_not_taken_for_nothing_found(disk: Path, fake_blkid: Path) -> None:
    fake_blkid.write_text("#!/bin/sh\necho 'error: cannot read' >&2\nexit 2\n")
    with pytest.raises(SignatureProbeError, match="cannot read"):
        await find(disk)


@pytest.mark.parametrize("script", ["exit 4", "kill -SEGV $$", "echo nonsense", "true"])
async def test_blkid_that_fails_or_babbles(disk: Path, fake_blkid: Path, script: str) -> None:
    fake_blkid.write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(SignatureProbeError):
        await find(disk)


async def test_blkid_that_hangs_is_given_up(disk: Path, fake_blkid: Path) -> None:
    fake_blkid.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(SignatureProbeError, match=r"did not answer within 0\.2 s"):
        await find(disk, deadline_s=0.2)
