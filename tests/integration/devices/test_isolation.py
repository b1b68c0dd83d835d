"""A device that hangs stalls no other: neither by the loop, nor by the kernel's workers, nor by their queues."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.devices.engine import LANE_DEPTH, Engine
from services.write_cloning.devices.errors import DeviceBusyError
from services.write_cloning.devices.file import FileDevice
from services.write_cloning.devices.interface import Done, ZeroMode
from services.write_cloning.devices.opening import open_device
from services.write_cloning.devices.ring import RingEngine
from services.write_cloning.devices.threads import ThreadEngine
from tests.integration.devices.conftest import OpenDevice
from tests.integration.devices.tools import KIB, MIB, Answer, Driver, pattern, run

pytestmark = pytest.mark.needs_root

STALL_BOUND_S = 0.1


@contextmanager
def frozen(mountpoint: Path) -> Iterator[None]:
    run("fsfreeze", "--freeze", str(mountpoint))
    try:
        yield
    finally:
        run("fsfreeze", "--unfreeze", str(mountpoint))


def make_disk(path: Path, size_bytes: int = 4 * MIB) -> Path:
    path.write_bytes(bytes(size_bytes))
    return path


def releasing(buffer: Buffer, answer: Answer) -> Done:
    """Make a `done` that gives a buffer back before it notes the answer."""

    def done(context: object, error: int) -> None:
        buffer.release()
        answer.done(context, error)

    return done


def hold_requests(device: FileDevice, pool: BufferPool, count: int) -> list[Answer]:
    """Start more of every kind of request than the kernel gets of one device; each keeps its buffer."""
    answers = [Answer() for _ in range(count)]
    for index, answer in enumerate(answers):
        offset = index % (device.size_bytes // (4 * KIB)) * 4 * KIB
        match index % 8:
            case 6:
                device.flush(answer.done, None)
            case 7:
                device.zero(offset, 4 * KIB, ZeroMode.PUNCH, False, answer.done, None)
            case kind:
                buffer = pool.take(4 * KIB)
                buffer.view[:] = pattern(4 * KIB, index)

                write = device.write_durably if kind == 5 else device.write
                write(offset, buffer, 0, 4 * KIB, releasing(buffer, answer), None)
    return answers


async def slowest_round_s(driver: Driver, rounds: int) -> float:
    """Write, flush and read again and again; the p99 of a small number of rounds is the slowest."""
    slowest = 0.0
    for index in range(rounds):
        started = time.perf_counter()
        assert await driver.write(index % 64 * 4 * KIB, pattern(4 * KIB, index)) == 0
        assert await driver.read(index % 64 * 4 * KIB, 4 * KIB) == pattern(4 * KIB, index)
        slowest = max(slowest, time.perf_counter() - started)
    return slowest


async def test_a_frozen_device_stalls_no_other(
    folder: Path, mounted: Path, engine: Engine, opened: OpenDevice, pool: BufferPool
) -> None:
    victim = await opened(make_disk(mounted / "disk.img"))
    other = Driver(await opened(make_disk(folder / "other.img")), pool)
    direct = Driver(await opened(make_disk(folder / "direct.img"), direct=True), pool)
    with frozen(mounted):
        answers = hold_requests(victim, pool, 2 * LANE_DEPTH)
        await asyncio.sleep(0.1)
        held = sum(not answer.is_there for answer in answers)
        assert held >= LANE_DEPTH
        for driver in (other, direct):
            assert await slowest_round_s(driver, 200) < STALL_BOUND_S
            assert await driver.flush() == 0
        assert victim.outstanding >= LANE_DEPTH
    assert [await answer.error() for answer in answers] == [0] * len(answers)
    assert victim.outstanding == 0


# The kernel has 64 queues for the writes of files. With so many files, the chance that one of them shares the frozen
# one's queue is 99.3 %.
FILES_FOR_A_COLLISION = 320
OPEN_AT_ONCE = 40


@pytest.mark.slow
async def test_no_file_waits_in_the_kernel_behind_a_frozen_one(
    folder: Path, mounted: Path, pool: BufferPool
) -> None:
    """Cause: io_uring's workers hash files into 64 queues, and a frozen file blocks its queue for all that share it.

    Failing looks like a write to an innocent file that takes until the thaw; with IOSQE_ASYNC taken away it is what
    one file in 64 shows.
    """
    ring = RingEngine()
    allowed = AllowedPaths([f"{folder}/**"])
    victim = await open_device(str(make_disk(mounted / "disk.img")), allowed=allowed, engine=ring)
    with frozen(mounted):
        answers = hold_requests(victim, pool, LANE_DEPTH)
        for start in range(0, FILES_FOR_A_COLLISION, OPEN_AT_ONCE):
            paths = [make_disk(folder / f"{start + index}.img", 256 * KIB) for index in range(OPEN_AT_ONCE)]
            devices = [await open_device(str(path), allowed=allowed, engine=ring) for path in paths]
            for device in devices:
                assert await slowest_round_s(Driver(device, pool), 3) < STALL_BOUND_S
            for device in devices:
                await device.close()
    assert [await answer.error() for answer in answers] == [0] * len(answers)
    await victim.close()
    await ring.close()


async def test_closing_while_frozen_waits_for_the_thaw(
    mounted: Path, engine: Engine, opened: OpenDevice, pool: BufferPool
) -> None:
    device = await opened(make_disk(mounted / "disk.img"))
    with frozen(mounted):
        answers = hold_requests(device, pool, 2 * LANE_DEPTH)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await device.close()
        assert os.fstat(device.fd).st_size == 4 * MIB
    async with asyncio.timeout(10):
        await device.close()
    assert [await answer.error() for answer in answers] == [0] * len(answers)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        os.fstat(device.fd)
    assert caught.value.errno == errno.EBADF


WRITE_AND_WAIT = """
import asyncio, sys
from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.engines import choose_engine
from services.write_cloning.devices.opening import open_device

async def main(path, engine_name):
    engine = choose_engine(allow_io_uring=engine_name == "io_uring").engine
    device = await open_device(path, allowed=AllowedPaths([path]), engine=engine)
    print("opened", flush=True)
    sys.stdin.readline()
    buffer = BufferPool().take(4096)
    buffer.view[:] = b"late" * 1024
    device.write(0, buffer, 0, 4096, lambda context, error: None, None)
    await asyncio.sleep(0.2)
    print("writing", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("engine_name", ["io_uring", "threads"])
async def test_the_lock_outlives_a_killed_process_until_its_last_write_has_landed(
    engine_name: str, mounted: Path
) -> None:
    """Rule R6: nothing that an earlier run started may land on a device that is in use again."""
    path = make_disk(mounted / "disk.img")
    allowed, engine = AllowedPaths([str(path)]), ThreadEngine()
    earlier = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(path), engine_name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert earlier.stdin is not None
    assert earlier.stdout is not None
    assert earlier.stdout.readline() == b"opened\n"
    with frozen(mounted):
        earlier.stdin.write(b"\n")
        earlier.stdin.flush()
        assert earlier.stdout.readline() == b"writing\n"
        earlier.kill()
        await asyncio.sleep(0.5)
        # Read-only, since opening for writing tries the filesystem, which is frozen.
        with pytest.raises(DeviceBusyError, match="in use"):
            await open_device(str(path), allowed=allowed, engine=engine, writable=False)
    earlier.communicate()

    async def reopened() -> FileDevice:
        while True:  # the kernel finishes the dead process's write, then lets go
            try:
                return await open_device(str(path), allowed=allowed, engine=engine)
            except DeviceBusyError:
                await asyncio.sleep(0.01)

    async with asyncio.timeout(10):
        device = await reopened()
    # It has landed, or it never will.
    before = path.read_bytes()
    await asyncio.sleep(0.2)
    assert path.read_bytes() == before
    await device.close()
