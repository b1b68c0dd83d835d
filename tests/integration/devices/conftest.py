"""Real files, loop devices and mounts, each in a folder of its own and gone afterwards; both engines."""

import asyncio
import contextlib
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.engine import Engine
from services.write_cloning.devices.engines import choose_engine
from services.write_cloning.devices.file import FileDevice
from services.write_cloning.devices.opening import open_device
from tests.integration.devices.tools import MIB, run, unmount

OpenDevice = Callable[..., "asyncio.Future[FileDevice]"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder on a filesystem that knows holes and direct I/O, which pytest's own may not."""
    with tempfile.TemporaryDirectory(prefix="cutover-devices-", dir="/var/tmp") as name:
        yield Path(name).resolve()


@pytest.fixture(params=["io_uring", "threads"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """Each engine in turn; closing it at the end fails when a device was left open."""
    choice = choose_engine(allow_io_uring=request.param == "io_uring")
    assert choice.engine.name == request.param, choice.why_not_io_uring
    yield choice.engine
    await choice.engine.close()


@pytest.fixture
def pool() -> Iterator[BufferPool]:
    pool = BufferPool()
    yield pool
    assert pool.in_use_bytes == 0, "a buffer was not released"


@pytest.fixture
async def opened(folder: Path, engine: Engine) -> AsyncIterator[OpenDevice]:
    """A function that opens devices, with the options of `open_device`; they are closed when the test ends."""
    devices: list[FileDevice] = []

    async def open_one(path: Path, **options: object) -> FileDevice:
        allowed = AllowedPaths([f"{folder}/**", "/dev/loop*"])
        device = await open_device(str(path), allowed=allowed, engine=engine, **options)  # type: ignore[arg-type]
        devices.append(device)
        return device

    yield open_one  # type: ignore[misc]
    for device in devices:
        await device.close()


@pytest.fixture
def disk(folder: Path) -> Path:
    """A file of 16 MiB, all hole."""
    path = folder / "disk.img"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    return path


class AttachLoop:
    """Attaches loop devices, by `attach_loop(file, *options)` with options of losetup; gives the path."""

    def __init__(self) -> None:
        self._attached: list[Path] = []

    def __call__(self, file: Path, *options: str) -> Path:
        device = Path(run("losetup", "--find", "--show", *options, str(file)).strip())
        self._attached.append(device)
        return device

    def detach(self, device: Path) -> None:
        """Detach one, and once only: the next to attach one may get the same number."""
        self._attached.remove(device)
        run("losetup", "--detach", str(device))

    def close(self) -> None:
        """Detach them all, also where one of them cannot be."""
        with contextlib.ExitStack() as stack:
            for device in self._attached:
                stack.callback(self.detach, device)


@pytest.fixture
def attach_loop() -> Iterator[AttachLoop]:
    attach = AttachLoop()
    yield attach
    attach.close()


@pytest.fixture
def mounted(folder: Path) -> Iterator[Path]:
    """An ext4 filesystem of its own, for freezing."""
    image, mountpoint = folder / "ext4.img", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    mountpoint.mkdir()
    run("mkfs.ext4", "-q", str(image))
    run("mount", "-o", "loop", str(image), str(mountpoint))
    yield mountpoint
    with contextlib.suppress(subprocess.CalledProcessError):  # it is thawed already, unless the test failed
        run("fsfreeze", "--unfreeze", str(mountpoint))
    unmount(mountpoint)


@pytest.fixture
def small_tmpfs(folder: Path) -> Iterator[Path]:
    """A tmpfs with room for 4 MiB."""
    mountpoint = folder / "tmpfs"
    mountpoint.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", str(mountpoint))
    yield mountpoint
    unmount(mountpoint)
