"""The jobs beside the data path share memory with other volumes, and touch no device that they were not given for now."""

import asyncio
import errno
from collections.abc import Callable, Coroutine, Sequence

import pytest

from services.write_cloning.copier import Copier, TargetFailedError
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.interface import Extent
from services.write_cloning.throttle import Throttle
from services.write_cloning.volume.failures import TIMEOUT
from services.write_cloning.volume.repair import PIECE_BYTES, copy_again
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.memory_device import MemoryDevice
from tests.support.stepping import REGION, SIZE, Bench, finish, turn


def _copier(
    bench: Bench,
    throttle: Throttle | None = None,
    *,
    target: MemoryDevice | None = None,
    io_timeout_s: float = 30,
) -> Copier:
    return Copier(
        volume=bench.volume,
        listener=bench.heard,
        source=bench.source,
        target=target or bench.target,
        pool=bench.pool,
        region_size_bytes=REGION,
        throttle=throttle or Throttle(),
        io_timeout_s=io_timeout_s,
    )


def _copied_again(
    source: MemoryDevice, target: MemoryDevice, pool: BufferPool, is_wanted: Callable[[], bool] = lambda: True
) -> Coroutine[object, object, int]:
    def flush_failed(error: int) -> None:
        raise AssertionError(f"a flush of the source failed with {error}")

    return copy_again(
        source, target, 0, source.size_bytes, pool, is_wanted=is_wanted, flush_failed=flush_failed
    )


async def test_paused_copier_holds_no_memory() -> None:
    """Four buffers each, for as long as copying lasted: sixteen paused migrations starved every other volume."""
    bench = Bench(State.SYNCING)
    copier = _copier(bench)
    copier.pause()
    async with asyncio.TaskGroup() as tasks:
        copying = tasks.create_task(copier.run())
        await turn()
        assert bench.pool.in_use_bytes == 0
        copying.cancel()


async def test_copier_that_waits_for_a_write_holds_no_memory() -> None:
    """The write may need memory itself; then each would wait for the other."""
    bench = Bench(State.SYNCING)
    bench.source.content[:] = bytes([1]) * SIZE
    bench.write(length=SIZE)
    async with asyncio.TaskGroup() as tasks:
        copying = tasks.create_task(_copier(bench).run())
        await turn()
        await turn()
        assert bench.pool.in_use_bytes == 0
        assert [each.operation for each in bench.source.pending] == ["write"]
        copying.cancel()


async def test_target_that_fails_under_several_copies_ends_them_all() -> None:
    bench = Bench(State.SYNCING)
    bench.source.content[:] = bytes([1]) * SIZE

    async def copy() -> None:
        try:
            await _copier(bench).run()
        except TargetFailedError:
            return
        raise AssertionError("nothing was said of the target")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(copy())
        await turn()
        for _ in range(SIZE // REGION):
            await finish(bench.source, "read")
        for _ in range(SIZE // REGION):
            await finish(bench.target, "write", errno.EIO)
    assert len(bench.heard.target_failures) == 1
    assert bench.pool.in_use_bytes == 0
    write = bench.write()
    await finish(bench.source, "write")
    bench.volume.failover.answer_withheld()
    assert bench.answered == [write]


class Mute(MemoryDevice):
    """Does not say where it has holes."""

    async def extents(self, offset: int, length: int, most: int | None = None) -> Sequence[Extent]:
        del offset, length, most
        await asyncio.Event().wait()
        raise AssertionError("nobody has set it")


async def test_target_that_does_not_say_where_its_holes_are_is_at_fault_after_the_timeout() -> None:
    """Without a bound, the writes to that region would wait for ever: the copier keeps them out meanwhile."""
    bench = Bench(State.SYNCING)
    copier = _copier(bench, target=Mute("target", bytes(SIZE)), io_timeout_s=0.02)
    with pytest.raises(TargetFailedError):
        async with asyncio.timeout(10):
            await copier.run()
    assert [failure.cause for failure in bench.heard.target_failures] == [TIMEOUT]
    exclusion = await bench.volume.exclude(0, SIZE)
    bench.volume.include(exclusion)


async def test_repair_leaves_a_target_alone_that_was_dropped_meanwhile() -> None:
    """It went on with the next piece, on a device that was closed by then, or opened again for the next attempt."""
    size = PIECE_BYTES * 2
    source, target = MemoryDevice("source", bytes([1]) * size), MemoryDevice("target", bytes(size))
    wanted = True
    pool = BufferPool(4 << 20)
    async with asyncio.TaskGroup() as tasks:
        copying = tasks.create_task(_copied_again(source, target, pool, lambda: wanted))
        await turn()
        await finish(source, "read")
        await finish(source, "flush")
        await finish(target, "write")
        wanted = False
        await finish(source, "read")
        assert not target.pending
    assert copying.result() == 0
    assert pool.in_use_bytes == 0


async def test_repair_waits_for_memory_rather_than_give_the_target_up() -> None:
    source, target = MemoryDevice("source", bytes([1]) * 4096), MemoryDevice("target", bytes(4096))
    pool = BufferPool(4096)
    hoard = pool.take(4096)
    async with asyncio.TaskGroup() as tasks:
        copying = tasks.create_task(_copied_again(source, target, pool))
        await turn()
        assert not copying.done()
        hoard.release()
        await turn()
        await finish(source, "read")
        await finish(source, "flush")
        await finish(target, "write")
    assert copying.result() == 0
    assert target.content == source.content


async def test_write_that_the_source_failed_is_not_copied_once_the_target_is_out() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    write = bench.write()
    await finish(bench.target, "write")
    await finish(bench.source, "write", errno.EIO)
    assert bench.heard.differing == [write]
    assert bench.volume.failover.needs_recopy(write)
    bench.volume.failover.drop(Side.TARGET, withhold=True)
    assert not bench.volume.failover.needs_recopy(write)
    bench.volume.failover.settle(write)  # the repair ends late
    assert not bench.answered
    bench.volume.failover.answer_withheld()
    assert bench.answered == [write]
    assert write.error == errno.EIO


async def test_bytes_that_are_given_back_let_others_go_at_once() -> None:
    throttle = Throttle(1000)
    async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        await throttle.take(1_000_000)
        tasks.create_task(throttle.take(1))
        await turn()
        throttle.give_back(1_000_000)


async def test_new_limit_begins_with_nothing_saved_up() -> None:
    """The copy ran ahead of a new limit by a quarter of a second, and `query` told so."""
    throttle = Throttle()
    throttle.limit(1_000_000)
    await throttle.take(100_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await throttle.take(1)
