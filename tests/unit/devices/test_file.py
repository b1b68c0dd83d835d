"""What a file device makes of results that are not plain success, one by one."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.engine import Operation
from services.write_cloning.devices.file import INTERRUPTIONS_MAX, FileDevice, OpenFile
from services.write_cloning.devices.identity import Found
from services.write_cloning.devices.interface import Done, ZeroMode
from services.write_cloning.devices.syscalls import KEEP_SIZE, PUNCH_HOLE, RWF_DSYNC, ZERO_RANGE
from services.write_cloning.devices.zeroing import INSTALMENT_BYTES
from shared.migration.devices import DeviceIdentity, DeviceKind
from tests.unit.devices.scripted import ScriptedEngine, ScriptedLane

KIB = 1 << 10
MIB = 1 << 20
PUNCH = PUNCH_HOLE | KEEP_SIZE
RANGE = ZERO_RANGE | KEEP_SIZE


class Harness:
    """A device over a scripted lane, and requests that can be awaited."""

    def __init__(self, *, is_direct: bool = False, can_punch: bool = True) -> None:
        engine = ScriptedEngine()
        fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        identity = DeviceIdentity(name="d", kind=DeviceKind.FILE, token="t", size_bytes=64 * MIB)
        self.device = FileDevice(
            OpenFile(
                fd=fd,
                seeking_fd=-1,
                found=Found(identity),
                real_path="/d",
                alignment_bytes=512 if is_direct else 1,
                is_direct=is_direct,
                is_hashed=not is_direct,
                can_punch=can_punch,
                can_zero_range_fast=True,
            ),
            engine,
        )
        self.lane: ScriptedLane = engine.lane
        self.buffer = BufferPool().take(64 * KIB)

    def script(self, *results: int) -> None:
        self.lane.results.extend(results)

    async def read(self, length: int, offset: int = 0, start: int = 0) -> int:
        return await answer_of(lambda done: self.device.read(offset, self.buffer, start, length, done, "c"))

    async def write(self, length: int, offset: int = 0, *, durable: bool = False) -> int:
        write = self.device.write_durably if durable else self.device.write
        return await answer_of(lambda done: write(offset, self.buffer, 0, length, done, "c"))

    async def flush(self) -> int:
        return await answer_of(lambda done: self.device.flush(done, "c"))

    async def zero(self, length: int, mode: ZeroMode, *, durable: bool = False) -> int:
        return await answer_of(lambda done: self.device.zero(0, length, mode, durable, done, "c"))

    def ranges(self) -> list[tuple[int, int, int]]:
        """Offset, place in the buffer, and length of what the lane was asked for."""
        base = self.buffer.address
        return [(asked.offset, asked.address - base, asked.length) for asked in self.lane.asked]

    def operations(self) -> list[Operation]:
        return [asked.operation for asked in self.lane.asked]


async def answer_of(ask: Callable[[Done], None]) -> int:
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(context: object, error: int) -> None:
        assert context == "c"
        answered.set_result(error)  # which raises when it is called twice

    ask(done)
    assert not answered.done(), "a done was called from inside the call"
    async with asyncio.timeout(5):
        return await answered


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    harness = Harness()
    yield harness
    await harness.device.close()


@pytest.fixture
async def direct() -> AsyncIterator[Harness]:
    harness = Harness(is_direct=True)
    yield harness
    await harness.device.close()


# ------------------------------------------------------------------------------- transfers


async def test_a_short_read_is_continued_where_it_stopped(harness: Harness) -> None:
    harness.script(1000, 1)
    assert await harness.read(4096, offset=8192, start=512) == 0
    assert harness.ranges() == [(8192, 512, 4096), (9192, 1512, 3096), (9193, 1513, 3095)]


async def test_a_short_write_is_continued_where_it_stopped(harness: Harness) -> None:
    harness.script(4095)
    assert await harness.write(4096, offset=100) == 0
    assert harness.ranges() == [(100, 0, 4096), (4195, 4095, 1)]


async def test_a_short_transfer_that_then_fails_fails(harness: Harness) -> None:
    harness.script(1000, -errno.ENOSPC)
    assert await harness.write(4096) == errno.ENOSPC


@pytest.mark.parametrize("results", [(0,), (4095, 0), (5000,)])
async def test_a_transfer_that_moves_nothing_or_too_much_is_an_error(
    harness: Harness, results: tuple[int, ...]
) -> None:
    harness.script(*results)
    assert await harness.read(4096) == errno.EIO
    harness.lane.results.clear()
    harness.script(*results)
    assert await harness.write(4096) == errno.EIO


async def test_a_direct_transfer_is_continued_at_a_block(direct: Harness) -> None:
    direct.script(1000)
    assert await direct.write(4096) == 0
    assert direct.ranges() == [(0, 0, 4096), (512, 512, 3584)]


async def test_a_direct_transfer_that_moved_less_than_a_block_is_an_error(direct: Harness) -> None:
    direct.script(511)
    assert await direct.write(4096) == errno.EIO
    assert len(direct.lane.asked) == 1


@pytest.mark.parametrize("error", [errno.EINTR, errno.EAGAIN])
async def test_an_interrupted_request_is_started_again(harness: Harness, error: int) -> None:
    harness.script(-error, -error)
    assert await harness.read(4096) == 0
    assert harness.ranges() == [(0, 0, 4096)] * 3


async def test_a_request_that_is_interrupted_for_ever_fails(harness: Harness) -> None:
    harness.script(*[-errno.EAGAIN] * 100)
    assert await harness.write(4096) == errno.EIO
    assert len(harness.lane.asked) == 1 + INTERRUPTIONS_MAX


@pytest.mark.parametrize("error", [errno.EINTR, errno.EAGAIN])
async def test_an_interrupted_flush_has_failed(harness: Harness, error: int) -> None:
    """It may have been the one that the kernel tells of lost writes; the next one succeeded, and was believed."""
    harness.script(-error)
    assert await harness.flush() == error
    assert await harness.flush() == error
    assert await harness.write(4096, durable=True) == error
    assert harness.operations() == [Operation.SYNC]


@pytest.mark.parametrize("error", [errno.EINTR, errno.EAGAIN])
async def test_an_interrupted_durable_direct_write_puts_an_end_to_flushes(
    direct: Harness, error: int
) -> None:
    direct.script(-error)
    assert await direct.write(4096, durable=True) == error
    assert await direct.flush() == error
    assert direct.operations() == [Operation.WRITE]


async def test_interrupted_zeroes_are_started_again(harness: Harness) -> None:
    harness.script(-errno.EINTR)
    assert await harness.zero(MIB, ZeroMode.PUNCH) == 0
    assert harness.operations() == [Operation.ALLOCATE, Operation.ALLOCATE]


async def test_an_error_is_answered_as_it_is(harness: Harness) -> None:
    harness.script(-errno.EREMOTEIO)
    assert await harness.read(4096) == errno.EREMOTEIO


# ------------------------------------------------------------------------------- durability


async def test_a_durable_cached_write_is_a_write_and_then_a_sync(harness: Harness) -> None:
    assert await harness.write(4096, durable=True) == 0
    assert harness.operations() == [Operation.WRITE, Operation.SYNC]
    assert harness.lane.asked[0].flags == 0


async def test_a_device_tells_that_the_flush_of_a_durable_write_has_failed(harness: Harness) -> None:
    harness.script(-errno.ENOSPC)
    assert await harness.write(4096, durable=True) == errno.ENOSPC
    assert harness.device.flush_error == 0
    harness.script(4096, -errno.EIO)
    assert await harness.write(4096, durable=True) == errno.EIO
    assert harness.device.flush_error == errno.EIO


async def test_a_durable_direct_write_is_one_request(direct: Harness) -> None:
    assert await direct.write(4096, durable=True) == 0
    assert [(asked.operation, asked.flags) for asked in direct.lane.asked] == [(Operation.WRITE, RWF_DSYNC)]


async def test_a_short_durable_direct_write_stays_durable(direct: Harness) -> None:
    direct.script(512)
    assert await direct.write(4096, durable=True) == 0
    assert [asked.flags for asked in direct.lane.asked] == [RWF_DSYNC, RWF_DSYNC]


async def test_a_durable_write_whose_write_fails_is_not_synced(harness: Harness) -> None:
    harness.script(-errno.ENOSPC)
    assert await harness.write(4096, durable=True) == errno.ENOSPC
    assert harness.operations() == [Operation.WRITE]
    assert await harness.flush() == 0


async def test_flushes_that_are_asked_for_while_one_runs_share_the_next(harness: Harness) -> None:
    """The one that runs may have begun before their writes were done."""
    harness.lane.is_holding = True
    answers: list[int] = []
    for _ in range(5):
        harness.device.flush(lambda _context, error: answers.append(error), None)
    assert harness.operations() == [Operation.SYNC]
    assert harness.device.outstanding == 5
    harness.lane.let_go()
    assert answers == [0]
    assert harness.operations() == [Operation.SYNC, Operation.SYNC]
    await asyncio.sleep(0)
    assert answers == [0] * 5
    assert harness.device.outstanding == 0


async def test_a_failed_flush_fails_all_that_follow_without_asking_again(harness: Harness) -> None:
    harness.script(-errno.EIO)
    assert await harness.flush() == errno.EIO
    assert await harness.flush() == errno.EIO
    assert await harness.write(4096, durable=True) == errno.EIO
    assert harness.operations() == [Operation.SYNC]
    assert await harness.write(4096) == 0


async def test_a_failed_flush_fails_those_that_wait_for_the_next(harness: Harness) -> None:
    harness.lane.is_holding = True
    harness.script(-errno.EIO)
    answers: list[int] = []
    for _ in range(3):
        harness.device.flush(lambda _context, error: answers.append(error), None)
    harness.lane.let_go()
    assert answers == [errno.EIO] * 3
    assert harness.operations() == [Operation.SYNC]


async def test_a_durable_direct_write_that_fails_puts_an_end_to_flushes(direct: Harness) -> None:
    """It may have been the cache's flush that failed, and the next one would succeed."""
    direct.script(-errno.EIO)
    assert await direct.write(4096, durable=True) == errno.EIO
    assert await direct.flush() == errno.EIO


async def test_a_durable_direct_write_without_room_says_nothing_of_earlier_writes(direct: Harness) -> None:
    direct.script(-errno.ENOSPC)
    assert await direct.write(4096, durable=True) == errno.ENOSPC
    assert await direct.flush() == 0


# ------------------------------------------------------------------------------- zeroes


async def ways(harness: Harness) -> list[tuple[Operation, int, int]]:
    return [(asked.operation, asked.flags, asked.length) for asked in harness.lane.asked]


async def test_punching_and_allocating(harness: Harness) -> None:
    assert await harness.zero(MIB, ZeroMode.PUNCH) == 0
    assert await harness.zero(MIB, ZeroMode.ALLOCATE, durable=True) == 0
    assert await ways(harness) == [
        (Operation.ALLOCATE, PUNCH, MIB),
        (Operation.ALLOCATE, RANGE, MIB),
        (Operation.SYNC, 0, 0),
    ]
    assert harness.device.can_zero_fast


async def test_what_is_refused_is_done_another_way_and_remembered(harness: Harness) -> None:
    harness.script(-errno.EOPNOTSUPP, -errno.EOPNOTSUPP)
    assert await harness.zero(2 * MIB + 512, ZeroMode.PUNCH) == 0
    writes = [(Operation.WRITE, 0, MIB), (Operation.WRITE, 0, MIB), (Operation.WRITE, 0, 512)]
    assert await ways(harness) == [
        (Operation.ALLOCATE, PUNCH, 2 * MIB + 512),
        (Operation.ALLOCATE, RANGE, 2 * MIB + 512),
        *writes,
    ]
    assert [asked.offset for asked in harness.lane.asked[2:]] == [0, MIB, 2 * MIB]
    assert not harness.device.can_zero_fast
    harness.lane.asked.clear()
    assert await harness.zero(512, ZeroMode.PUNCH) == 0
    assert await harness.zero(512, ZeroMode.ALLOCATE, durable=True) == 0
    assert await ways(harness) == [
        (Operation.WRITE, 0, 512),
        (Operation.WRITE, 0, 512),
        (Operation.SYNC, 0, 0),
    ]


async def test_a_failure_is_not_taken_for_a_refusal(harness: Harness) -> None:
    harness.script(-errno.EIO)
    assert await harness.zero(MIB, ZeroMode.PUNCH) == errno.EIO
    assert len(harness.lane.asked) == 1
    assert harness.device.can_zero_fast


async def test_zeroes_whose_writing_fails(harness: Harness) -> None:
    harness.script(-errno.EOPNOTSUPP, MIB, -errno.ENOSPC)
    assert await harness.zero(4 * MIB, ZeroMode.ALLOCATE, durable=True) == errno.ENOSPC
    assert harness.operations() == [Operation.ALLOCATE, Operation.WRITE, Operation.WRITE]


async def test_durable_zeroes_after_a_failed_flush(harness: Harness) -> None:
    harness.script(-errno.EIO)
    assert await harness.flush() == errno.EIO
    assert await harness.zero(MIB, ZeroMode.PUNCH, durable=True) == errno.EIO
    assert await harness.zero(MIB, ZeroMode.PUNCH) == 0


@pytest.mark.parametrize(("results", "instalments"), [((), 3), ((-errno.EOPNOTSUPP,), 512)])
async def test_long_range_goes_on_in_instalments_that_are_told(
    harness: Harness, results: tuple[int, ...], instalments: int
) -> None:
    """Whether the kernel makes them, perhaps by writing, or they are written here."""
    harness.script(*results)
    told: list[object] = []
    offset, length = MIB, 2 * INSTALMENT_BYTES
    zeroed = await answer_of(
        lambda done: harness.device.zero(offset, length, ZeroMode.ALLOCATE, False, done, "c", told.append)
    )
    assert zeroed == 0
    assert told == ["c"] * instalments
    asked = harness.lane.asked[len(results) :]
    assert [each.offset for each in asked][:1] == [offset]
    assert all(one.offset + one.length == other.offset for one, other in pairwise(asked))
    assert sum(each.length for each in asked) == length


async def test_what_was_found_at_opening_is_not_tried() -> None:
    harness = Harness(can_punch=False)
    assert not harness.device.can_zero_fast
    assert await harness.zero(MIB, ZeroMode.PUNCH) == 0
    assert await ways(harness) == [(Operation.ALLOCATE, RANGE, MIB)]
    await harness.device.close()


# ------------------------------------------------------------------------------- prefetching


async def test_prefetching_a_huge_range_is_clipped(harness: Harness) -> None:
    assert await answer_of(lambda done: harness.device.prefetch(0, 1 << 40, done, "c")) == 0
    assert harness.lane.asked[0].length < 1 << 31


async def test_prefetching_past_the_cache_is_nothing(direct: Harness) -> None:
    assert await answer_of(lambda done: direct.device.prefetch(0, MIB, done, "c")) == 0
    assert direct.lane.asked == []
