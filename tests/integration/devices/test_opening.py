"""Opening local devices: every refusal, each leaving nothing open and no lock behind."""

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from services.write_cloning.devices import errors, identity, inodes, opening
from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.engine import Engine
from services.write_cloning.devices.file import FileDevice
from services.write_cloning.devices.opening import leads_to, open_device, same_device
from services.write_cloning.devices.threads import ThreadEngine
from services.write_cloning.opener import ConfiguredOpener
from shared.config.model import HostConfig
from shared.migration.devices import DeviceKind
from shared.migration.refusals import Refusal
from tests.integration.devices.conftest import AttachLoop
from tests.integration.devices.tools import KIB, MIB, Driver, open_descriptors, pattern, run, unmount, until
from tests.support.loops import loop_node

pytestmark = pytest.mark.needs_root

Refused = Callable[..., "asyncio.Future[errors.DeviceRefusedError]"]


@pytest.fixture
def engine() -> Engine:
    return ThreadEngine()


@pytest.fixture
def allowed(folder: Path) -> AllowedPaths:
    return AllowedPaths([f"{folder}/**", "/dev/loop*"])


@pytest.fixture
async def refused(allowed: AllowedPaths, engine: Engine) -> AsyncIterator[Refused]:
    """A function that gives the error of an opening that fails, after a check that no descriptor was left."""

    async def refusal(path: Path | str, **options: object) -> errors.DeviceRefusedError:
        before = open_descriptors()
        with pytest.raises(errors.DeviceRefusedError) as caught:
            await open_device(str(path), allowed=allowed, engine=engine, **options)  # type: ignore[arg-type]
        assert open_descriptors() == before
        return caught.value

    yield refusal  # type: ignore[misc]
    await engine.close()


async def open_one(path: Path | str, allowed: AllowedPaths, engine: Engine, **options: object) -> FileDevice:
    return await open_device(str(path), allowed=allowed, engine=engine, **options)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- what is opened


async def test_a_file(disk: Path, allowed: AllowedPaths, engine: Engine) -> None:
    device = await open_one(f"file://{disk}", allowed, engine)
    fsid = os.statvfs(disk).f_fsid
    assert device.size_bytes == device.identity.size_bytes == 16 * MIB
    assert device.identity.kind is DeviceKind.FILE
    assert device.identity.token.startswith(f"inode:fs-{fsid:016x}:{disk.stat().st_ino}:generation-"), (
        "this machine has ext4 there"
    )
    assert device.identity.name == f"file://{disk}"
    assert device.real_path == str(disk)
    assert (device.alignment_bytes, device.engine_name) == (1, "threads")
    await device.close()


async def test_a_block_device_is_opened_for_direct_io(
    disk: Path, allowed: AllowedPaths, engine: Engine, attach_loop: AttachLoop
) -> None:
    path = attach_loop(disk, "--sector-size", "4096")
    device = await open_one(path, allowed, engine)
    assert device.identity.kind is DeviceKind.BLOCK
    fsid = os.statvfs(disk).f_fsid
    assert device.identity.token.startswith(f"loop:fs-{fsid:016x}:{disk.stat().st_ino}:0:generation-"), (
        "its number is the next one's tomorrow"
    )
    assert device.identity.logical_sector_bytes == device.alignment_bytes == 4096
    assert device.size_bytes == 16 * MIB
    assert device.engine_name == "threads direct"
    await device.close()


async def test_a_file_opened_for_direct_io_says_what_must_be_aligned(
    disk: Path, allowed: AllowedPaths, engine: Engine
) -> None:
    device = await open_one(disk, allowed, engine, direct=True)
    assert device.alignment_bytes in {512, 4096}
    await device.close()


async def test_a_device_is_free_again_once_closed(disk: Path, allowed: AllowedPaths, engine: Engine) -> None:
    for _ in range(2):
        device = await open_one(disk, allowed, engine)
        await device.close()


async def test_reading_a_read_only_file(disk: Path, allowed: AllowedPaths, engine: Engine) -> None:
    disk.chmod(0o444)
    device = await open_one(disk, allowed, engine, writable=False)
    pool = BufferPool()
    assert await Driver(device, pool).read(0, 4 * KIB) == bytes(4 * KIB)
    await device.close()


# ------------------------------------------------------------------------------- paths


async def test_missing(folder: Path, refused: Refused) -> None:
    refusal = await refused(folder / "none.img")
    assert refusal.code == "device-missing"
    assert str(refusal) == f"{folder}/none.img does not exist"


async def test_missing_below_a_file(disk: Path, refused: Refused) -> None:
    assert (await refused(disk / "x")).code == "device-missing"


async def test_a_circle_of_links(folder: Path, refused: Refused) -> None:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    assert (await refused(folder / "a")).code == "device-missing"


async def test_relative(refused: Refused) -> None:
    assert (await refused("disk.img")).code == "path-not-absolute"


async def test_what_is_neither_file_nor_block_device(folder: Path, refused: Refused) -> None:
    (folder / "inner").mkdir()
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    for name, what in (("inner", "a folder"), ("pipe", "a pipe"), ("socket", "a socket")):
        refusal = await refused(folder / name)
        assert refusal.code == "not-a-device"
        assert str(refusal) == f"{folder}/{name} is {what}, neither a regular file nor a block device"


async def test_a_character_device_is_not_even_opened(engine: Engine) -> None:
    with pytest.raises(errors.NotADeviceError, match="/dev/zero is a character device"):
        await open_device("/dev/zero", allowed=AllowedPaths(["/dev/*"]), engine=engine)


async def test_not_allowed(folder: Path, engine: Engine, disk: Path) -> None:
    allowed = AllowedPaths([f"{folder}/other/*", "/dev/sd*"])
    with pytest.raises(errors.PathNotAllowedError) as refusal:
        await open_device(str(disk), allowed=allowed, engine=engine)
    assert refusal.value.code == "path-not-allowed"
    assert str(refusal.value) == f"{disk} is not allowed here; allowed: {folder}/other/*, /dev/sd*"


async def test_a_link_out_of_what_is_allowed(folder: Path, engine: Engine, disk: Path) -> None:
    inside = folder / "allowed"
    inside.mkdir()
    (inside / "link.img").symlink_to(disk)
    allowed = AllowedPaths([f"{inside}/**"])
    with pytest.raises(errors.PathNotAllowedError, match=f"which leads to {disk}, is not allowed"):
        await open_device(str(inside / "link.img"), allowed=allowed, engine=engine)


async def test_dots_out_of_what_is_allowed(folder: Path, engine: Engine, disk: Path) -> None:
    inside = folder / "allowed"
    inside.mkdir()
    allowed = AllowedPaths([f"{inside}/**"])
    with pytest.raises(errors.PathNotAllowedError):
        await open_device(f"{inside}/../{disk.name}", allowed=allowed, engine=engine)


async def test_a_link_into_what_is_allowed(folder: Path, engine: Engine, disk: Path) -> None:
    link = folder / "link.img"
    link.symlink_to(disk)
    device = await open_device(str(link), allowed=AllowedPaths([str(disk)]), engine=engine)
    assert device.real_path == str(disk)
    await device.close()


async def test_a_link_swapped_in_between_check_and_use_changes_nothing(
    folder: Path, engine: Engine, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment between the check and the real opening, an attacker replaces the file by a link to a secret."""
    secret = folder / "secret.img"
    secret.write_bytes(pattern(16 * MIB, 9))
    inside = folder / "allowed"
    inside.mkdir()
    disk = disk.rename(inside / "disk.img")
    inode = disk.stat().st_ino
    original = opening._reopen

    def swap(*arguments: object, **options: object) -> int:
        disk.unlink()
        disk.symlink_to(secret)
        return original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(opening, "_reopen", swap)
    allowed = AllowedPaths([f"{inside}/**"])
    device = await open_device(str(disk), allowed=allowed, engine=engine)
    assert os.fstat(device.fd).st_ino == inode
    await device.close()
    # And what is there now is what is checked the next time.
    monkeypatch.undo()
    with pytest.raises(errors.PathNotAllowedError, match="secret"):
        await open_device(str(disk), allowed=allowed, engine=engine)


SWAP_FOR_EVER = """
import os, sys
link, spare, *targets = sys.argv[1:]
while True:
    for target in targets:
        os.symlink(target, spare)
        os.rename(spare, link)
"""


async def test_links_swapped_all_the_time_never_lead_out(folder: Path, engine: Engine) -> None:
    inside = folder / "allowed"
    inside.mkdir()
    good, secret = inside / "good.img", folder / "secret.img"
    for path in (good, secret):
        with path.open("wb") as file:
            file.truncate(MIB)
    link, spare = inside / "link.img", folder / "spare"
    swapper = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SWAP_FOR_EVER,
            *map(str, (link, spare, good, secret)),
        ]
    )
    allowed, opened, turned_down = AllowedPaths([f"{inside}/**"]), 0, 0
    try:
        await until(link.is_symlink)
        for _ in range(300):
            try:
                device = await open_device(str(link), allowed=allowed, engine=engine)
            except errors.PathNotAllowedError:
                turned_down += 1
                continue
            opened += 1
            assert os.fstat(device.fd).st_ino == good.stat().st_ino
            await device.close()
    finally:
        swapper.kill()
        swapper.wait()
    assert opened
    assert turned_down


# ------------------------------------------------------------------------------- busy


async def test_a_second_opener_in_this_process(
    disk: Path, allowed: AllowedPaths, engine: Engine, refused: Refused
) -> None:
    device = await open_one(disk, allowed, engine)
    refusal = await refused(disk)
    assert refusal.code == "device-busy"
    assert f"{disk} is in use: locked by this process" in str(refusal)
    assert (await refused(disk, writable=False)).code == "device-busy"
    await device.close()


@pytest.mark.parametrize(
    ("how", "taking"),
    [
        ("flock", "fcntl.flock(f, fcntl.LOCK_EX)"),
        ("flock shared", "fcntl.flock(f, fcntl.LOCK_SH)"),
        # As qemu does: read locks on a few bytes.
        (
            "open file description",
            "fcntl.fcntl(f, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', 0, 0, 100, 1, 0))",
        ),
        ("posix", "fcntl.lockf(f, fcntl.LOCK_EX)"),
    ],
)
async def test_a_second_opener_in_another_process(
    how: str, taking: str, disk: Path, refused: Refused, allowed: AllowedPaths, engine: Engine
) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl, struct, sys; f = open({str(disk)!r}, 'r+b'); {taking}; print(flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        refusal = await refused(disk)
        assert refusal.code == "device-busy"
        if how != "open file description":  # the kernel names no process for those
            assert f"process {holder.pid}" in str(refusal)
    finally:
        holder.communicate(b"\n")
    device = await open_one(disk, allowed, engine)
    await device.close()


async def test_our_lock_keeps_qemu_and_flock_out(disk: Path, allowed: AllowedPaths, engine: Engine) -> None:
    device = await open_one(disk, allowed, engine)
    with pytest.raises(subprocess.CalledProcessError, match="qemu-io"):
        run("qemu-io", "-f", "raw", "-c", "write 0 4k", str(disk))
    with pytest.raises(subprocess.CalledProcessError, match="flock"):
        run("flock", "--nonblock", str(disk), "true")
    await device.close()
    run("qemu-io", "-f", "raw", "-c", "write 0 4k", str(disk))


async def test_a_mounted_block_device(
    disk: Path, folder: Path, attach_loop: AttachLoop, refused: Refused
) -> None:
    run("mkfs.ext4", "-q", str(disk))
    device = attach_loop(disk)
    mountpoint = folder / "mountpoint"
    mountpoint.mkdir()
    run("mount", str(device), str(mountpoint))
    try:
        refusal = await refused(device)
        assert refusal.code == "device-busy"
        assert str(refusal) == f"{device} is in use: it is mounted at {mountpoint}"
        assert (await refused(device, writable=False)).code == "device-busy"
    finally:
        unmount(mountpoint)


async def test_a_block_device_that_someone_has_exclusively(
    disk: Path, attach_loop: AttachLoop, refused: Refused
) -> None:
    device = attach_loop(disk)
    fd = os.open(device, os.O_RDWR | os.O_EXCL)
    assert (await refused(device)).code == "device-busy"
    os.close(fd)


async def test_an_opened_block_device_cannot_be_mounted(
    disk: Path, folder: Path, attach_loop: AttachLoop, allowed: AllowedPaths, engine: Engine
) -> None:
    run("mkfs.ext4", "-q", str(disk))
    path = attach_loop(disk)
    device = await open_one(path, allowed, engine)
    (folder / "mountpoint").mkdir()
    with pytest.raises(subprocess.CalledProcessError, match="mount"):
        run("mount", str(path), str(folder / "mountpoint"))
    await device.close()


async def test_a_probe_that_holds_a_block_device_for_a_moment_is_waited_for(
    disk: Path, attach_loop: AttachLoop, allowed: AllowedPaths, engine: Engine
) -> None:
    """Udev takes a shared lock whenever a device appears."""
    path = attach_loop(disk)
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    asyncio.get_running_loop().call_later(0.2, os.close, fd)
    device = await open_one(path, allowed, engine)
    await device.close()


async def test_a_file_under_a_loop_device(disk: Path, attach_loop: AttachLoop, refused: Refused) -> None:
    device = attach_loop(disk)
    refusal = await refused(disk)
    assert refusal.code == "device-busy"
    assert str(refusal) == f"{disk} is in use: it is the backing file of {device}"


async def test_a_file_under_a_loop_device_that_was_attached_by_another_name(
    disk: Path, folder: Path, attach_loop: AttachLoop, refused: Refused
) -> None:
    os.link(disk, folder / "other.img")
    attach_loop(folder / "other.img")
    (folder / "other.img").unlink()
    assert (await refused(disk)).code == "device-busy"


# ------------------------------------------------------------------------------- what cannot be used


async def test_a_file_that_nobody_may_write(disk: Path, refused: Refused) -> None:
    disk.chmod(0o444)
    refusal = await refused(disk)
    assert refusal.code == "device-read-only"
    assert str(disk) in str(refusal)


async def test_a_read_only_filesystem(folder: Path, mounted: Path, refused: Refused) -> None:
    path = mounted / "disk.img"
    path.write_bytes(bytes(MIB))
    run("mount", "-o", "remount,ro", str(mounted))
    assert (await refused(path)).code == "device-read-only"


async def test_a_read_only_block_device(disk: Path, attach_loop: AttachLoop, refused: Refused) -> None:
    device = attach_loop(disk, "--read-only")
    assert (await refused(device)).code == "device-read-only"


async def test_zero_length(folder: Path, refused: Refused) -> None:
    (folder / "empty.img").touch()
    assert (await refused(folder / "empty.img")).code == "device-empty"


async def test_zero_length_block_device(refused: Refused) -> None:
    """An unused loop device is one; which is why it is no use."""
    with loop_node() as unused:
        assert (await refused(unused)).code == "device-empty"


async def test_size_not_in_sectors(folder: Path, refused: Refused) -> None:
    (folder / "odd.img").write_bytes(bytes(4 * KIB + 511))
    refusal = await refused(folder / "odd.img")
    assert refusal.code == "device-size"
    assert "4607 bytes, which is no multiple of 512" in str(refusal)


async def test_direct_io_where_there_is_none() -> None:
    with pytest.raises(errors.DirectIoError) as refusal:
        await open_device(
            "/proc/self/status",
            allowed=AllowedPaths(["/proc/**"]),
            engine=ThreadEngine(),
            writable=False,
            direct=True,
        )
    assert refusal.value.code == "direct-io-unsupported"


async def test_a_device_that_does_not_answer_is_given_up_and_closed_when_it_does(
    disk: Path, allowed: AllowedPaths, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    original = opening._lock

    def hang(*arguments: object) -> None:
        may_go_on.wait(10)
        original(*arguments)  # type: ignore[arg-type]

    before = len(open_descriptors())
    monkeypatch.setattr(opening, "_lock", hang)
    with pytest.raises(errors.DeviceHangsError, match=r"did not answer within 0\.1 s") as refusal:
        await open_one(disk, allowed, engine, deadline_s=0.1)
    assert refusal.value.code == "device-hangs"
    monkeypatch.undo()
    may_go_on.set()
    await until(lambda: len(open_descriptors()) == before)
    device = await open_one(disk, allowed, engine)  # so no lock was left either
    await device.close()


async def test_a_failure_after_the_lock_releases_it(
    disk: Path, allowed: AllowedPaths, engine: Engine, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(opening, "_describe_file", fail)
    refusal = await refused(disk)
    assert refusal.code == "device-unusable"
    assert "Input/output error" in str(refusal)
    monkeypatch.undo()
    device = await open_one(disk, allowed, engine)
    await device.close()


# ------------------------------------------------------------------------------- the same device twice


async def test_same_device_by_any_name(disk: Path, folder: Path, attach_loop: AttachLoop) -> None:
    (folder / "symbolic.img").symlink_to(disk)
    os.link(disk, folder / "hard.img")
    other = folder / "other.img"
    other.write_bytes(disk.read_bytes())
    loop = attach_loop(disk)
    os.mknod(folder / "node", loop.stat().st_mode, loop.stat().st_rdev)
    for name in (disk, folder / "symbolic.img", folder / "hard.img", f"file://{disk}", loop, folder / "node"):
        assert await same_device(str(disk), str(name)), name
        assert await same_device(str(name), str(loop)), name
        assert not await same_device(str(other), str(name)), name


async def test_a_loop_device_over_a_loop_device(disk: Path, attach_loop: AttachLoop) -> None:
    lower = attach_loop(disk)
    upper = attach_loop(lower)
    assert await same_device(str(disk), str(upper))
    assert await same_device(str(lower), str(upper))


async def test_comparing_what_is_missing(disk: Path, folder: Path) -> None:
    with pytest.raises(errors.DeviceMissingError, match=r"none\.img does not exist"):
        await same_device(str(disk), str(folder / "none.img"))


# ------------------------------------------------------------------------------- names of what is open


@pytest.mark.parametrize("kind", ["file", "symlink", "loop"])
async def test_name_leads_to_what_was_opened_by_it(
    kind: str, disk: Path, folder: Path, attach_loop: AttachLoop, allowed: AllowedPaths, engine: Engine
) -> None:
    path = disk
    if kind == "symlink":
        path = folder / "link.img"
        path.symlink_to(disk)
    elif kind == "loop":
        path = attach_loop(disk)
    device = await open_one(path, allowed, engine)
    try:
        assert await leads_to(str(path), device.identity)
        if kind == "symlink":
            path.unlink()
            assert not await leads_to(str(path), device.identity)
    finally:
        await device.close()


@pytest.mark.parametrize("way", ["deleted", "renamed", "replaced", "folder renamed"])
async def test_name_that_leads_elsewhere(
    way: str, folder: Path, allowed: AllowedPaths, engine: Engine
) -> None:
    inner = folder / "inner"
    inner.mkdir()
    path = inner / "disk.img"
    path.write_bytes(bytes(MIB))
    device = await open_one(path, allowed, engine)
    try:
        match way:
            case "deleted":
                path.unlink()
            case "renamed":
                path.rename(inner / "other.img")
            case "replaced":
                path.rename(inner / "other.img")
                path.write_bytes(bytes(MIB))
            case _:
                inner.rename(folder / "outer")
        assert not await leads_to(str(path), device.identity)
    finally:
        await device.close()


# ------------------------------------------------------------------------------- after a reboot


@pytest.fixture
def renumbered(folder: Path, attach_loop: AttachLoop) -> Iterator[Callable[[str], Path]]:
    """A function that mounts a filesystem, the same at each call but on a device of another number; gives the folder."""
    image, mountpoint = folder / "filesystem.img", folder / "mountpoint"
    mountpoint.mkdir()
    attached: list[Path] = []

    def mount(kind: str) -> Path:
        if attached:
            unmount(mountpoint)
        else:
            with image.open("wb") as file:
                file.truncate(400 * MIB)
            run(f"mkfs.{kind}", "-q", str(image))
        device = attach_loop(image)
        if attached:
            attach_loop.detach(attached[-1])
        attached.append(device)
        run("mount", str(device), str(mountpoint))
        return mountpoint

    yield mount
    unmount(mountpoint)


def make_file(path: Path) -> Path:
    path.write_bytes(bytes(MIB))
    return path


@asynccontextmanager
async def opened_over(
    over: str, file: Path, attach_loop: AttachLoop, allowed: AllowedPaths, engine: Engine
) -> AsyncIterator[tuple[FileDevice, str]]:
    """A file, or a loop device over it that is gone afterwards; and its path."""
    path = attach_loop(file) if over == "loop" else file
    device = await open_one(path, allowed, engine)
    try:
        yield device, str(path)
    finally:
        await device.close()
        if over == "loop":
            attach_loop.detach(path)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("over", ["file", "loop"])
async def test_what_lies_on_a_disk_that_got_another_number_is_still_what_was_recorded(
    kind: str,
    over: str,
    renumbered: Callable[[str], Path],
    attach_loop: AttachLoop,
    allowed: AllowedPaths,
    engine: Engine,
) -> None:
    """Disks are numbered as they are found: by that number every file was another one after a reboot, and stayed closed."""
    file = make_file(renumbered(kind) / "disk.img")
    number_before = file.stat().st_dev
    async with opened_over(over, file, attach_loop, allowed, engine) as (device, _):
        recorded = device.identity
    renumbered(kind)
    assert file.stat().st_dev != number_before
    async with opened_over(over, file, attach_loop, allowed, engine) as (device, path):
        assert device.is_recorded_as(recorded)
        assert await leads_to(path, recorded)


@pytest.mark.parametrize("over", ["file", "loop"])
async def test_what_an_earlier_version_recorded_counts_for_as_long_as_the_numbers_fit(
    over: str, disk: Path, attach_loop: AttachLoop, allowed: AllowedPaths, engine: Engine
) -> None:
    path = attach_loop(disk) if over == "loop" else disk
    status = disk.stat()
    device = await open_one(path, allowed, engine)
    try:
        what, rest = ("loop", ":0") if over == "loop" else ("inode", "")
        for number, fits in ((status.st_dev, True), (status.st_dev + 1, False)):
            token = f"{what}:{number}:{status.st_ino}{rest}"
            recorded = replace(device.identity, token=token)
            assert device.is_recorded_as(recorded) is fits
            assert await leads_to(str(path), recorded) is fits
    finally:
        await device.close()


async def test_a_file_where_nothing_stays_over_a_reboot_is_known_by_the_number(
    small_tmpfs: Path, folder: Path, engine: Engine
) -> None:
    file = make_file(small_tmpfs / "disk.img")
    device = await open_one(file, AllowedPaths([f"{folder}/**"]), engine)
    assert device.identity.token.startswith(f"inode:{file.stat().st_dev}:{file.stat().st_ino}")
    await device.close()


# ------------------------------------------------------------------------------- made anew


def make_anew(file: Path) -> None:
    """Replace a file by another one that has its inode number, as filesystems do that hand it out again at once."""
    number = file.stat().st_ino
    file.unlink()
    others: list[Path] = []
    while make_file(file).stat().st_ino != number:
        others.append(file.rename(file.with_name(f"other-{len(others)}")))
    for other in others:
        other.unlink()


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("over", ["file", "loop"])
async def test_a_file_that_was_made_anew_is_not_the_one_that_was_recorded(
    kind: str,
    over: str,
    renumbered: Callable[[str], Path],
    attach_loop: AttachLoop,
    allowed: AllowedPaths,
    engine: Engine,
) -> None:
    """The next file gets a removed one's inode number: by that alone an empty target was resumed as in sync, and committed."""
    file = make_file(renumbered(kind) / "disk.img")
    async with opened_over(over, file, attach_loop, allowed, engine) as (device, _):
        recorded = device.identity
    make_anew(file)
    async with opened_over(over, file, attach_loop, allowed, engine) as (device, path):
        assert not device.is_recorded_as(recorded)
        assert not await leads_to(path, recorded)
        untold = replace(recorded, token=recorded.token.rpartition(":")[0])
        assert device.is_recorded_as(untold), "a record of before says no more than this"


async def test_a_file_without_a_generation_is_known_by_its_time_of_birth(
    disk: Path, allowed: AllowedPaths, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as tmpfs:
        tmpfs.setattr(inodes, "generation", lambda _fd: b"")
        device = await open_one(disk, allowed, engine)
        recorded = device.identity
        await device.close()
    assert ":born-" in recorded.token
    assert await leads_to(str(disk), recorded), "told more, it is the same file all the same"
    make_anew(disk)
    assert not await leads_to(str(disk), replace(recorded, size_bytes=MIB))


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("v/a", "'v/a' is no absolute path, which it has to be: the host opens it"),
        (
            "http://foo",
            "http://foo is neither an absolute path nor a file:///PATH, nbd:// or nbd+unix:// URI",
        ),
        ("nbd://", "nbd:// is no URI of a remote export"),
    ],
)
async def test_a_device_that_is_written_wrongly_is_told_by_its_side(
    engine: Engine, side: str, uri: str, words: str
) -> None:
    host = HostConfig(name="h1", state_dir="/var/lib/cutover", allowed_devices=("/srv/*",))
    pair = {"source": "/srv/none", "target": "/srv/neither"} | {side: uri}
    with pytest.raises(Refusal) as caught:
        await ConfiguredOpener(host, engine).open_pair(**pair, overwrite_target=False)
    assert caught.value.message.startswith(f"The {side} cannot be used: {words}")


@pytest.mark.parametrize("direct_io", ["auto", "always", "never"])
@pytest.mark.parametrize("sector_bytes", [0, 512, 4096])
async def test_what_a_device_that_is_not_there_will_ask_for_is_told_by_its_record(
    disk: Path,
    folder: Path,
    attach_loop: AttachLoop,
    engine: Engine,
    direct_io: Literal["auto", "always", "never"],
    sector_bytes: int,
) -> None:
    """A volume is opened for what its target will ask for when it is back."""
    path = attach_loop(disk, "--sector-size", str(sector_bytes)) if sector_bytes else disk
    allowed = (f"{folder}/**", "/dev/loop*")
    config = HostConfig(name="h", state_dir="/s", allowed_devices=allowed, direct_io=direct_io)
    opener = ConfiguredOpener(config, engine)
    with path.open("rb") as file:
        recorded = identity.identify(str(path), file.fileno(), 16 * MIB, 512).identity
    device = await opener.open_recorded(recorded, is_target=True)
    assert opener.alignment_bytes(device.identity) == device.alignment_bytes
    await device.close()
