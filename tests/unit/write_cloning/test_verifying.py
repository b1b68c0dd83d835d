"""The comparison of both sides: what it finds, what it leaves alone, and what it says when it cannot go on."""

import asyncio
import errno
from collections.abc import Sequence

import pytest

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.comparing import BLOCK_BYTES, first_difference
from services.write_cloning.devices.interface import Extent
from services.write_cloning.surroundings import Limits
from services.write_cloning.throttle import Throttle
from services.write_cloning.verification import Verification, data_of_either
from services.write_cloning.volume.failures import TIMEOUT, Failure
from services.write_cloning.volume.volume import Volume
from shared.clock import SystemClock
from shared.messages.status import Outcome
from shared.migration.devices import Side
from shared.migration.states import State, routing_of
from tests.support.memory_device import MemoryDevice
from tests.support.standing_host import PromptDevice
from tests.support.stepping import REGION, SIZE, Bench, Heard, finish, turn

LIMITS = Limits(region_size_bytes=REGION, io_timeout_s=30)
CONTENT = bytes(range(1, 256)) * (SIZE // 255 + 1)


class Allocated(PromptDevice):
    """All data, even where it is zero."""

    async def extents(self, offset: int, length: int, most: int | None = None) -> Sequence[Extent]:
        del most
        return [Extent(offset, length, is_hole=False)]


class Sides:
    """Two devices that do what they are asked, a volume over them, and one comparison."""

    def __init__(
        self,
        *,
        source: PromptDevice | None = None,
        target: PromptDevice | None = None,
        io_timeout_s: float = 30,
    ) -> None:
        self.source = source or PromptDevice("source", CONTENT[:SIZE])
        self.target = target or PromptDevice("target", CONTENT[:SIZE])
        self.heard = Heard()
        self.pool = BufferPool(8 << 20)
        self.volume = Volume(
            size_bytes=SIZE,
            alignment_bytes=self.source.alignment_bytes,
            region_size_bytes=REGION,
            pool=self.pool,
            listener=self.heard,
            source=self.source,
            target=self.target,
        )
        self.volume.route(State.SOURCE_SELECTED, routing_of(State.SOURCE_SELECTED, Side.SOURCE))
        self.volume.open()
        self.throttle = Throttle()
        limits = Limits(region_size_bytes=REGION, io_timeout_s=io_timeout_s)
        self.verification = verification_of(
            self.volume, self.heard, self.source, self.target, self.pool, limits, self.throttle
        )

    async def is_equal(self) -> bool:
        return await self.verification.run()

    @property
    def detail(self) -> str:
        return self.verification.view().detail


def verification_of(
    volume: Volume,
    heard: Heard,
    source: MemoryDevice,
    target: MemoryDevice,
    pool: BufferPool,
    limits: Limits = LIMITS,
    throttle: Throttle | None = None,
) -> Verification:
    return Verification(
        verification_id="op-verify",
        volume=volume,
        listener=heard,
        devices={Side.SOURCE: source, Side.TARGET: target},
        pool=pool,
        limits=limits,
        throttle=throttle or Throttle(),
        clock=SystemClock(),
    )


# ------------------------------------------------------------------ what it finds


async def test_equal_sides_are_read_once_and_nothing_is_said() -> None:
    sides = Sides()
    assert await sides.is_equal()
    assert sides.source.log == sides.target.log == ["read"] * (SIZE // REGION)
    assert (sides.verification.outcome, sides.heard) == (None, Heard())
    view = sides.verification.view()
    assert (view.compared_bytes, view.remaining_bytes) == (SIZE, 0)
    assert sides.pool.in_use_bytes == 0


@pytest.mark.parametrize("offset", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * REGION + 5000, SIZE - 1])
async def test_flipped_bit_is_a_fault_of_the_target_at_its_block(offset: int) -> None:
    sides = Sides()
    sides.target.content[offset] ^= 0x10
    assert not await sides.is_equal()
    assert sides.verification.outcome is Outcome.DIFFERENT
    block = offset - offset % BLOCK_BYTES
    assert sides.heard.target_failures == [
        Failure(side=Side.TARGET, operation="verify", cause="differs", offset=block, length=BLOCK_BYTES)
    ]
    assert str(block) in sides.detail
    assert sides.volume.failover.has_dropped_target
    assert sides.pool.in_use_bytes == 0


async def test_several_differences_are_one_fault() -> None:
    sides = Sides()
    sides.target.content[:] = bytes(SIZE)
    assert not await sides.is_equal()
    assert len(sides.heard.target_failures) == 1


# ------------------------------------------------------------------ holes


async def test_holes_on_both_sides_are_not_read() -> None:
    sides = Sides(source=PromptDevice("source", bytes(SIZE)), target=PromptDevice("target", bytes(SIZE)))
    assert await sides.is_equal()
    assert sides.source.log == sides.target.log == []


@pytest.mark.parametrize("hole", list(Side))
async def test_hole_compares_as_zeroes(hole: Side) -> None:
    zeroes = bytes(SIZE)
    sides = Sides(
        source=(PromptDevice if hole is Side.SOURCE else Allocated)("source", zeroes),
        target=(PromptDevice if hole is Side.TARGET else Allocated)("target", zeroes),
    )
    assert await sides.is_equal()
    assert "read" in sides.source.log


@pytest.mark.parametrize("hole", list(Side))
async def test_data_where_the_other_side_has_a_hole_differs(hole: Side) -> None:
    sides = Sides(source=PromptDevice("source", bytes(SIZE)), target=PromptDevice("target", bytes(SIZE)))
    written = sides.target if hole is Side.SOURCE else sides.source
    written.content[REGION + BLOCK_BYTES] = 1
    assert not await sides.is_equal()
    assert [failure.offset for failure in sides.heard.target_failures] == [REGION + BLOCK_BYTES]


def test_data_of_either_side_is_grown_to_whole_blocks_and_joined() -> None:
    extents = [
        Extent(0, 1000, is_hole=True),
        Extent(1000, 200, is_hole=False),
        Extent(1200, 8800, is_hole=True),
        Extent(0, 1500, is_hole=True),
        Extent(1500, 100, is_hole=False),
        Extent(4096, 100, is_hole=False),
        Extent(9900, 100, is_hole=False),
    ]
    assert data_of_either(extents, 512, 10000) == [(512, 2048), (4096, 4608), (9728, 10000)]
    assert data_of_either(extents, 1, 10000) == [(1000, 1200), (1500, 1600), (4096, 4196), (9900, 10000)]


async def test_blocks_are_read_whole_under_direct_io() -> None:
    source, target = Ragged("source", bytes(SIZE), 512), Ragged("target", bytes(SIZE), 512)
    sides = Sides(source=source, target=target)  # the devices themselves refuse what is not aligned
    assert await sides.is_equal()
    assert "read" in source.log


class Ragged(PromptDevice):
    """Its data begins and ends within blocks."""

    def __init__(self, name: str, content: bytes, alignment_bytes: int) -> None:
        super().__init__(name, content)
        self.alignment_bytes = alignment_bytes

    async def extents(self, offset: int, length: int, most: int | None = None) -> Sequence[Extent]:
        del most
        return [
            Extent(offset, 700, is_hole=True),
            Extent(offset + 700, 1000, is_hole=False),
            Extent(offset + 1700, length - 1700, is_hole=True),
        ]


@pytest.mark.parametrize("at", [0, 4095, 4096, 9999, 10000])
def test_difference_is_told_by_its_block(at: int) -> None:
    buffer = BufferPool(1 << 20).take(65536)
    length, other = 10001, 20000
    buffer.view[: other + length] = bytes(other + length)
    assert first_difference(buffer, 0, other, length) is None
    buffer.view[other + at] = 1
    assert first_difference(buffer, 0, other, length) == at - at % BLOCK_BYTES
    buffer.view[at] = 1
    assert first_difference(buffer, 0, other, length) is None


def test_runs_beyond_the_buffer_are_not_compared() -> None:
    buffer = BufferPool(1 << 20).take(4096)
    with pytest.raises(ValueError, match="not in 4096 bytes"):
        first_difference(buffer, 0, 4000, 97)


# ------------------------------------------------------------------ beside the application


async def test_write_that_one_side_has_done_is_waited_for() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    verification = verification_of(bench.volume, bench.heard, bench.source, bench.target, bench.pool)
    write = bench.write(length=SIZE, value=7)
    async with asyncio.TaskGroup() as tasks:
        comparing = tasks.create_task(verification.run())
        await finish(bench.source, "write")
        await turn()
        assert [each.operation for each in bench.source.pending] == []
        await finish(bench.target, "write")
        assert bench.answered == [write]
        for _ in range(SIZE // REGION):
            await finish(bench.source, "read")
            await finish(bench.target, "read")
    assert comparing.result()


async def test_write_to_a_region_that_is_compared_waits_for_it() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    bench.source.content[0] = bench.target.content[0] = 1  # or there is nothing to read
    verification = verification_of(bench.volume, bench.heard, bench.source, bench.target, bench.pool)
    async with asyncio.TaskGroup() as tasks:
        comparing = tasks.create_task(verification.run())
        await turn()
        bench.write(value=9)
        await finish(bench.source, "read")
        assert "write" not in {each.operation for each in bench.source.pending}
        await finish(bench.target, "read")
        await finish(bench.source, "write")
        await finish(bench.target, "write")
    assert comparing.result()


async def test_write_that_the_source_failed_is_waited_for_until_both_sides_are_the_same_again() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    write = bench.write(value=7)
    await finish(bench.target, "write")
    await finish(bench.source, "write", errno.EIO)
    verification = verification_of(bench.volume, bench.heard, bench.source, bench.target, bench.pool)
    async with asyncio.TaskGroup() as tasks:
        comparing = tasks.create_task(verification.run())
        await turn()
        assert not bench.source.pending
        bench.target.content[:] = bench.source.content  # the repair
        bench.volume.failover.settle(write)
    assert comparing.result()
    assert not bench.heard.target_failures


async def test_target_that_was_dropped_meanwhile_is_not_called_different() -> None:
    """It misses every write from then on, so of course it differs; it has its fault already."""
    bench = Bench(State.SOURCE_SELECTED)
    bench.source.content[0] = bench.target.content[0] = 1
    verification = verification_of(bench.volume, bench.heard, bench.source, bench.target, bench.pool)
    async with asyncio.TaskGroup() as tasks:
        comparing = tasks.create_task(verification.run())
        await turn()
        bench.volume.failover.drop(Side.TARGET, withhold=True)
        bench.source.content[0] = 2
        await finish(bench.source, "read")
        await finish(bench.target, "read")
    assert not comparing.result()
    assert verification.outcome is Outcome.INCOMPLETE
    assert not bench.heard.target_failures


async def test_paused_comparison_begins_no_region_and_holds_no_memory() -> None:
    sides = Sides()
    sides.verification.pace.pause()
    async with asyncio.TaskGroup() as tasks:
        comparing = tasks.create_task(sides.is_equal())
        await turn()
        assert (sides.source.log, sides.pool.in_use_bytes) == ([], 0)
        sides.verification.pace.resume()
    assert comparing.result()


async def test_comparison_takes_from_the_throttle_what_it_reads() -> None:
    sides = Sides()
    sides.throttle.limit(REGION // 1000)
    async with asyncio.TaskGroup() as tasks:
        comparing = tasks.create_task(sides.is_equal())
        for _ in range(20):
            await turn()
        assert sides.verification.pace.done_bytes <= REGION
        sides.throttle.limit(None)
    assert comparing.result()


# ------------------------------------------------------------------ trouble


async def test_source_that_cannot_be_read_leaves_the_comparison_incomplete_and_the_rest_compared() -> None:
    sides = Sides()
    sides.source.failing["read"] = errno.EIO
    assert not await sides.is_equal()
    assert sides.verification.outcome is Outcome.INCOMPLETE
    regions = SIZE // REGION
    assert (
        sides.detail == f"{regions} regions were not compared, because the source could not be read: EIO at 0"
    )
    assert [failure.operation for failure in sides.heard.source_failures] == ["read"] * regions
    assert not sides.heard.target_failures


async def test_target_that_cannot_be_read_is_at_fault() -> None:
    sides = Sides()
    sides.target.failing["read"] = errno.EIO
    assert not await sides.is_equal()
    assert sides.verification.outcome is Outcome.INCOMPLETE
    failure = sides.heard.target_failures[0]
    assert (failure.operation, failure.cause, failure.errno) == ("read", "EIO", errno.EIO)


@pytest.mark.parametrize("side", list(Side))
async def test_side_that_hangs_is_waited_for_no_longer_than_the_timeout(side: Side) -> None:
    sides = Sides(io_timeout_s=0.02)
    hanging = sides.source if side is Side.SOURCE else sides.target
    hanging.hanging.add("read")
    assert not await sides.is_equal()
    assert sides.verification.outcome is Outcome.INCOMPLETE
    failures = sides.heard.source_failures if side is Side.SOURCE else sides.heard.target_failures
    assert {failure.cause for failure in failures} == {TIMEOUT}
    assert sides.pool.in_use_bytes > 0  # the device may still write into it
    hanging.let_go()
    await turn()
    assert sides.pool.in_use_bytes == 0
    exclusion = await sides.volume.exclude(0, SIZE)  # nothing is kept from the application
    sides.volume.include(exclusion)
