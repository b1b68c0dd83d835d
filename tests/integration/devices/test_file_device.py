"""What every local device does, on both engines, on files and through loop devices, cached and direct."""

import asyncio
import errno
import os
import random
import resource
import threading
from pathlib import Path

import pytest

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.engine import LANE_DEPTH, Engine
from services.write_cloning.devices.errors import EngineMisuseError
from services.write_cloning.devices.file import FileDevice
from services.write_cloning.devices.interface import Extent, ZeroMode
from tests.integration.devices.conftest import AttachLoop, OpenDevice
from tests.integration.devices.tools import (
    KIB,
    MIB,
    Answer,
    Driver,
    allocated_bytes,
    open_descriptors,
    pattern,
    until,
)

pytestmark = pytest.mark.needs_root


@pytest.fixture(params=["file", "file direct", "loop", "loop direct"])
async def device(
    request: pytest.FixtureRequest, disk: Path, attach_loop: AttachLoop, opened: OpenDevice
) -> FileDevice:
    """16 MiB that read as zeroes."""
    kind, _, direct = request.param.partition(" ")
    path = disk if kind == "file" else attach_loop(disk)
    return await opened(path, direct=bool(direct))


@pytest.fixture
def driver(device: FileDevice, pool: BufferPool) -> Driver:
    return Driver(device, pool)


async def test_what_was_written_is_read(driver: Driver) -> None:
    data = pattern(64 * KIB)
    assert await driver.write(1 * MIB, data, start=4 * KIB) == 0
    assert await driver.read(1 * MIB, 64 * KIB, start=8 * KIB) == data
    assert await driver.read(0, 4 * KIB) == bytes(4 * KIB)


async def test_the_last_block_can_be_written_and_read(driver: Driver) -> None:
    end = driver.device.size_bytes
    assert await driver.write(end - 4 * KIB, pattern(4 * KIB)) == 0
    assert await driver.read(end - 4 * KIB, 4 * KIB) == pattern(4 * KIB)


async def test_large_requests(driver: Driver) -> None:
    data = pattern(8 * MIB)
    assert await driver.write(4 * KIB, data, durable=True) == 0
    assert await driver.read(4 * KIB, 8 * MIB) == data


async def test_smallest_unit(driver: Driver) -> None:
    """The alignment that a device announces is enough."""
    unit = max(driver.device.alignment_bytes, 1)
    assert await driver.write(3 * unit, pattern(unit)) == 0
    assert await driver.read(2 * unit, 3 * unit) == bytes(unit) + pattern(unit) + bytes(unit)


async def test_many_requests_at_once_each_answered_once_with_its_context(
    device: FileDevice, pool: BufferPool
) -> None:
    """Three times what the lane lets into the kernel: the rest waits in the device, and nothing is lost."""
    count = 3 * LANE_DEPTH
    answers = [Answer() for _ in range(count)]
    buffers = [pool.take(4 * KIB) for _ in range(count)]
    order = random.Random(4).sample(range(count), count)
    for index in order:
        buffers[index].view[:] = pattern(4 * KIB, index)
        device.write(index * 4 * KIB, buffers[index], 0, 4 * KIB, answers[index].done, index)
    assert device.outstanding == count
    assert not any(answer.is_there for answer in answers)
    assert [await answer.error() for answer in answers] == [0] * count
    assert [answer.calls[0][0] for answer in answers] == list(range(count))
    assert device.outstanding == 0
    for buffer in buffers:
        buffer.release()
    driver = Driver(device, pool)
    for index in range(count):
        assert await driver.read(index * 4 * KIB, 4 * KIB) == pattern(4 * KIB, index)


async def test_durable_writes_and_flushes(driver: Driver) -> None:
    assert await driver.write(0, pattern(4 * KIB), durable=True) == 0
    assert await driver.write(8 * KIB, pattern(4 * KIB)) == 0
    assert await driver.flush() == 0
    assert await driver.read(0, 4 * KIB) == pattern(4 * KIB)


async def test_many_flushes_at_once(device: FileDevice) -> None:
    answers = [Answer() for _ in range(50)]
    for answer in answers:
        device.flush(answer.done, None)
    assert device.outstanding > 0
    assert [await answer.error() for answer in answers] == [0] * 50
    assert device.outstanding == 0


async def test_prefetch_succeeds(driver: Driver) -> None:
    assert await driver.prefetch(0, 16 * MIB) == 0


@pytest.mark.parametrize("mode", list(ZeroMode))
@pytest.mark.parametrize("durable", [False, True])
async def test_zeroed_ranges_read_as_zeroes_and_nothing_else_changes(
    driver: Driver, mode: ZeroMode, durable: bool
) -> None:
    assert await driver.write(0, pattern(4 * MIB)) == 0
    assert await driver.zero(1 * MIB, 2 * MIB, mode, durable=durable) == 0
    expected = bytearray(pattern(4 * MIB))
    expected[1 * MIB : 3 * MIB] = bytes(2 * MIB)
    assert await driver.read(0, 4 * MIB) == expected
    assert driver.device.size_bytes == 16 * MIB


@pytest.mark.parametrize("mode", list(ZeroMode))
async def test_parts_of_a_block_devices_sectors_are_zeroed_by_writing(
    disk: Path, attach_loop: AttachLoop, opened: OpenDevice, pool: BufferPool, mode: ZeroMode
) -> None:
    """Without direct I/O any range may come, and fallocate(2) refuses it with EINVAL: the target was at fault for it."""
    driver = Driver(await opened(attach_loop(disk), direct=False), pool)
    assert await driver.write(0, pattern(16 * KIB)) == 0
    assert await driver.zero(100, 3000, mode) == 0
    expected = bytearray(pattern(16 * KIB))
    expected[100:3100] = bytes(3000)
    assert await driver.read(0, 16 * KIB) == expected
    assert driver.device.can_zero_fast, "whole sectors can be as before"


async def test_punching_gives_storage_back_and_allocating_keeps_it(driver: Driver, disk: Path) -> None:
    assert await driver.write(0, pattern(8 * MIB), durable=True) == 0
    assert await driver.zero(0, 4 * MIB, ZeroMode.PUNCH, durable=True) == 0
    os.sync()
    assert allocated_bytes(disk) < 5 * MIB
    assert await driver.zero(4 * MIB, 4 * MIB, ZeroMode.ALLOCATE, durable=True) == 0
    os.sync()
    assert allocated_bytes(disk) >= 4 * MIB
    assert driver.device.can_zero_fast


async def test_concurrent_mix_ends_as_it_should(driver: Driver) -> None:
    """Every region has one writer that writes, zeroes and reads it in turn; regions run side by side."""
    region = 64 * KIB
    seed = 20_240_817

    async def exercise(index: int) -> None:
        chance = random.Random(seed + index)
        content = bytes(region)
        for turn in range(6):
            offset = index * region
            if chance.random() < 0.3:
                assert await driver.zero(offset, region, chance.choice(list(ZeroMode))) == 0
                content = bytes(region)
            else:
                content = pattern(region, turn + index)
                assert await driver.write(offset, content, durable=chance.random() < 0.2) == 0
            assert await driver.read(offset, region) == content, f"seed {seed}, region {index}, turn {turn}"

    async with asyncio.TaskGroup() as group:
        for index in range(100):
            group.create_task(exercise(index))


async def test_an_exception_in_a_done_is_reported_and_harms_no_other(
    device: FileDevice, pool: BufferPool
) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    def fail(_context: object, _error: int) -> None:
        raise ZeroDivisionError

    buffer = pool.take(4 * KIB)
    answers = [Answer() for _ in range(10)]
    for answer in answers:
        device.read(0, buffer, 0, 4 * KIB, fail, None)
        device.read(0, buffer, 0, 4 * KIB, answer.done, None)
    assert [await answer.error() for answer in answers] == [0] * 10
    await until(lambda: not device.outstanding)
    assert len(reported) == 10
    assert all(isinstance(context["exception"], ZeroDivisionError) for context in reported)
    buffer.release()


async def test_a_done_may_start_the_next_request(device: FileDevice, pool: BufferPool) -> None:
    buffer = pool.take(4 * KIB)
    left = 500
    last = Answer()

    def again(context: object, error: int) -> None:
        nonlocal left
        left -= 1
        if left and not error:
            device.read(0, buffer, 0, 4 * KIB, again, None)
        else:
            last.done(context, error)

    again(None, 0)
    assert await last.error() == 0
    assert left == 0
    buffer.release()


async def test_closing_waits_for_what_is_under_way(device: FileDevice, pool: BufferPool) -> None:
    buffers = [pool.take(MIB) for _ in range(16)]
    answers = [Answer() for _ in buffers]
    for index, (buffer, answer) in enumerate(zip(buffers, answers, strict=True)):
        write = device.write_durably if index % 2 == 0 else device.write
        write(index * MIB, buffer, 0, MIB, answer.done, None)
    await device.close()
    assert [await answer.error() for answer in answers] == [0] * 16
    for buffer in buffers:
        buffer.release()


async def test_a_closed_device_takes_no_request_and_may_be_closed_again(
    device: FileDevice, pool: BufferPool
) -> None:
    await device.close()
    await device.close()
    buffer = pool.take(4 * KIB)
    answer = Answer()
    with pytest.raises(EngineMisuseError, match="closed"):
        device.read(0, buffer, 0, 4 * KIB, answer.done, None)
    with pytest.raises(EngineMisuseError, match="closed"):
        device.write(0, buffer, 0, 4 * KIB, answer.done, None)
    with pytest.raises(EngineMisuseError, match="closed"):
        device.flush(answer.done, None)
    buffer.release()
    assert not answer.is_there


async def test_two_who_close_at_once_both_return(device: FileDevice, pool: BufferPool) -> None:
    buffer = pool.take(MIB)
    answer = Answer()
    device.write_durably(0, buffer, 0, MIB, answer.done, None)
    async with asyncio.timeout(10):
        await asyncio.gather(device.close(), device.close())
    assert await answer.error() == 0
    buffer.release()


async def test_engine_name_says_how(device: FileDevice, engine: Engine) -> None:
    expected = f"{engine.name} direct" if device.alignment_bytes > 1 else engine.name
    assert device.engine_name == expected


async def test_an_engine_is_not_closed_under_a_device(device: FileDevice, engine: Engine) -> None:
    with pytest.raises(EngineMisuseError, match="1 devices use"):
        await engine.close()
    assert device.outstanding == 0


# ------------------------------------------------------------------------------- extents


async def test_extents_of_a_file_are_its_data_and_holes(
    disk: Path, opened: OpenDevice, pool: BufferPool
) -> None:
    driver = Driver(await opened(disk), pool)
    assert await driver.write(1 * MIB, pattern(64 * KIB)) == 0
    assert await driver.write(15 * MIB, pattern(MIB)) == 0
    assert await driver.device.extents(0, 16 * MIB) == [
        Extent(0, 1 * MIB, is_hole=True),
        Extent(1 * MIB, 64 * KIB, is_hole=False),
        Extent(1 * MIB + 64 * KIB, 14 * MIB - 64 * KIB, is_hole=True),
        Extent(15 * MIB, 1 * MIB, is_hole=False),
    ]
    assert await driver.device.extents(1 * MIB + 512, 512) == [Extent(1 * MIB + 512, 512, is_hole=False)]
    assert await driver.device.extents(4 * MIB, MIB) == [Extent(4 * MIB, MIB, is_hole=True)]


async def test_extents_of_a_block_device_are_all_data(
    disk: Path, attach_loop: AttachLoop, opened: OpenDevice
) -> None:
    device = await opened(attach_loop(disk))
    assert await device.extents(0, 16 * MIB) == [Extent(0, 16 * MIB, is_hole=False)]


async def test_untouched_holes_stay_holes(disk: Path, opened: OpenDevice, pool: BufferPool) -> None:
    driver = Driver(await opened(disk), pool)
    assert await driver.read(0, MIB) == bytes(MIB)
    assert await driver.write(8 * MIB, pattern(4 * KIB), durable=True) == 0
    assert allocated_bytes(disk) == 4 * KIB


# ------------------------------------------------------------------------------- what goes wrong


async def test_a_file_cut_short_behind_our_back_is_an_error_not_garbage(
    disk: Path, opened: OpenDevice, pool: BufferPool
) -> None:
    driver = Driver(await opened(disk), pool)
    assert await driver.write(0, pattern(2 * MIB)) == 0
    os.truncate(disk, MIB + 512)
    assert (await driver.try_read(2 * MIB, 4 * KIB))[0] == errno.EIO
    assert (await driver.try_read(MIB, 4 * KIB))[0] == errno.EIO
    assert await driver.read(MIB - 4 * KIB, 4 * KIB) == pattern(2 * MIB)[MIB - 4 * KIB : MIB]


async def test_a_short_write_is_continued_and_its_cause_reported(
    disk: Path, opened: OpenDevice, pool: BufferPool
) -> None:
    """A file size limit in the middle of the range makes the kernel write the first half, then refuse the second."""
    driver = Driver(await opened(disk), pool)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, hard))
    try:
        assert await driver.write(2 * MIB - 4 * KIB, pattern(8 * KIB)) == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await driver.read(2 * MIB - 4 * KIB, 8 * KIB) == pattern(8 * KIB)[: 4 * KIB] + bytes(4 * KIB)


async def test_a_full_filesystem_fails_the_write_and_flushes_go_on(
    small_tmpfs: Path, opened: OpenDevice, pool: BufferPool
) -> None:
    path = small_tmpfs / "disk.img"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    driver = Driver(await opened(path), pool)
    assert await driver.write(0, pattern(8 * MIB)) == errno.ENOSPC
    assert await driver.write(8 * MIB, pattern(MIB), durable=True) == errno.ENOSPC
    assert await driver.flush() == 0


async def test_what_a_filesystem_refuses_is_done_another_way_and_not_asked_again(
    small_tmpfs: Path, opened: OpenDevice, pool: BufferPool
) -> None:
    """Tmpfs can punch, but has no ZERO_RANGE: storage is kept by writing zeroes, in pieces."""
    path = small_tmpfs / "disk.img"
    with path.open("wb") as file:
        file.truncate(3 * MIB)
    device = await opened(path)
    driver = Driver(device, pool)
    was_fast = device.can_zero_fast
    assert await driver.write(0, pattern(3 * MIB)) == 0
    assert await driver.zero(512, 2 * MIB + 512, ZeroMode.ALLOCATE) == 0
    assert (was_fast, device.can_zero_fast) == (True, False)
    assert await driver.read(0, 3 * MIB) == (
        pattern(3 * MIB)[:512] + bytes(2 * MIB + 512) + pattern(3 * MIB)[2 * MIB + KIB :]
    )
    assert await driver.zero(0, MIB, ZeroMode.ALLOCATE, durable=True) == 0
    assert await driver.read(0, MIB) == bytes(MIB)


async def test_a_failed_flush_is_final(
    small_tmpfs: Path, attach_loop: AttachLoop, opened: OpenDevice, pool: BufferPool
) -> None:
    """The kernel reports lost cached writes once; the next fsync succeeds with the data gone. Ours must not."""
    path = small_tmpfs / "disk.img"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    device = await opened(attach_loop(path), direct=False)
    driver = Driver(device, pool)
    assert await driver.write(0, pattern(8 * MIB)) == 0
    assert await driver.flush() == errno.EIO
    os.fsync(device.fd)  # if the kernel said EIO again, this test would show nothing
    assert await driver.flush() == errno.EIO
    assert await driver.write(0, pattern(4 * KIB), durable=True) == errno.EIO
    assert await driver.zero(0, 4 * KIB, ZeroMode.PUNCH, durable=True) == errno.EIO


async def test_all_who_wait_for_a_flush_that_fails_are_told(
    small_tmpfs: Path, attach_loop: AttachLoop, opened: OpenDevice, pool: BufferPool
) -> None:
    path = small_tmpfs / "disk.img"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    device = await opened(attach_loop(path), direct=False)
    assert await Driver(device, pool).write(0, pattern(8 * MIB)) == 0
    answers = [Answer() for _ in range(5)]
    for answer in answers:
        device.flush(answer.done, None)
    assert [await answer.error() for answer in answers] == [errno.EIO] * 5


async def test_a_direct_device_reports_the_error_with_the_write(
    small_tmpfs: Path, attach_loop: AttachLoop, opened: OpenDevice, pool: BufferPool
) -> None:
    """Which is why block devices are opened for direct I/O: no later flush has to tell."""
    path = small_tmpfs / "disk.img"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    driver = Driver(await opened(attach_loop(path)), pool)
    assert await driver.write(0, pattern(8 * MIB)) in {errno.EIO, errno.ENOSPC}


async def test_descriptors_and_threads_do_not_pile_up(
    disk: Path, opened: OpenDevice, pool: BufferPool
) -> None:
    async def once() -> None:
        device = await opened(disk)
        assert await Driver(device, pool).read(0, 4 * KIB) == bytes(4 * KIB)
        await device.extents(0, MIB)
        await device.close()

    await once()
    descriptors = len(open_descriptors())
    for _ in range(20):
        await once()
    assert len(open_descriptors()) == descriptors
    ours = ("device-", "extents-", "open ")  # those that were dismissed end by themselves
    await until(lambda: not any(thread.name.startswith(ours) for thread in threading.enumerate()))
