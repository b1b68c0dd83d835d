"""What waits in a volume comes to an end, whatever the devices do: holding, closing, reading elsewhere, want of memory."""

import asyncio
import errno

import pytest

from services.write_cloning.volume.failures import SideFailedError
from services.write_cloning.volume.requests import Kind
from shared.migration.devices import Side
from shared.migration.states import State, routing_of
from tests.support.stepping import SIZE, Bench, finish, turn


async def test_stream_of_flushes_does_not_keep_writes_from_being_held() -> None:
    """A flush began before the last one was answered, so that there was always one under way, and no end of waiting."""
    bench = Bench(State.SOURCE_SELECTED)
    write = bench.write()
    bench.ask(Kind.FLUSH)
    async with asyncio.TaskGroup() as tasks:
        quiet = tasks.create_task(bench.volume.quiesce())
        for _ in range(3):
            bench.ask(Kind.FLUSH)
            await finish(bench.source, "flush")
        assert not quiet.done()
        await finish(bench.source, "write")
        await finish(bench.target, "write")
        assert quiet.done()
        assert write in bench.answered


async def test_held_writes_wait_for_those_behind_an_exclusion() -> None:
    bench = Bench(State.SYNCING)
    exclusion = await bench.volume.exclude(0, 4096)
    blocked = bench.write()
    async with asyncio.TaskGroup() as tasks:
        quiet = tasks.create_task(bench.volume.quiesce())
        await turn()
        assert not quiet.done()
        bench.volume.include(exclusion)
        await finish(bench.source, "write")
        await finish(bench.target, "write")
        assert quiet.done()
        assert bench.answered == [blocked]


async def test_close_waits_for_a_write_behind_an_exclusion() -> None:
    """It was in no device's hands yet, so that the volume was taken for closed, flushed, and written to afterwards."""
    bench = Bench(State.SYNCING)
    exclusion = await bench.volume.exclude(0, 4096)
    bench.write()
    async with asyncio.TaskGroup() as tasks:
        closed = tasks.create_task(bench.volume.close())
        await turn()
        assert not closed.done()
        bench.volume.include(exclusion)
        await finish(bench.source, "write")
        await finish(bench.target, "write")
        assert closed.done()


async def test_close_waits_for_a_write_that_a_decision_holds() -> None:
    """It was sent on by the routing of before the decision, which was made all the same: one side missed it."""
    bench = Bench(State.SETUP)
    await bench.volume.quiesce()
    held = bench.write()
    async with asyncio.TaskGroup() as tasks:
        closed = tasks.create_task(bench.volume.close())
        await turn()
        assert not bench.source.pending
        bench.volume.route(State.SYNCING, routing_of(State.SYNCING, Side.SOURCE))
        bench.volume.release()
        await finish(bench.source, "write")
        await finish(bench.target, "write")
        assert closed.done()
        assert bench.answered == [held]


async def test_target_that_fails_while_the_volume_closes_only_delays_it() -> None:
    """The failure ended the wait with an exception, and with it the whole host's clean stop."""
    bench = Bench(State.SYNCING)
    write = bench.write()
    async with asyncio.TaskGroup() as tasks:
        closed = tasks.create_task(bench.volume.close())
        await finish(bench.target, "write", errno.EIO)
        await finish(bench.source, "write")
        assert not closed.done()
        bench.volume.failover.answer_withheld()
        await closed
        assert bench.answered == [write]


@pytest.mark.parametrize("side", list(Side))
async def test_side_that_fails_ends_the_wait_for_writes(side: Side) -> None:
    bench = Bench(State.TARGET_SELECTED)
    bench.write()

    async def wait() -> None:
        with pytest.raises(SideFailedError):
            await bench.volume.quiesce()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wait())
        await turn()
        await finish(bench.source if side is Side.SOURCE else bench.target, "write", errno.EIO)
    await wait()  # nobody begins to wait before the decision is made


async def test_read_goes_on_elsewhere_when_memory_is_free_again() -> None:
    """Without memory the read ended with an error and without a buffer, which its connection choked on."""
    bench = Bench(State.TARGET_SELECTED, pool_bytes=4096)
    hoard = bench.pool.take(4096)
    read = bench.read()
    old = read.buffer
    assert old is not None
    bench.volume.failover.target_timed_out(read)
    await turn()
    assert not bench.answered
    hoard.release()
    await finish(bench.source, "read")
    assert bench.answered == [read]
    assert not read.error
    assert read.buffer is not old
    assert old.references == 1, "the target may still write into it"
    await finish(bench.target, "read")
    assert old.references == 0


async def test_second_read_is_not_waited_for_when_its_side_leaves() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    read = bench.read()
    await finish(bench.source, "read", errno.EIO)
    assert len(bench.target.pending) == 1
    for _ in range(3):
        bench.volume.overdue.count()
    assert bench.volume.overdue.on_target(1) is read
    bench.volume.failover.target_timed_out(read)
    assert bench.answered == [read]
    assert read.error == errno.EIO
    assert read.buffer is not None
    assert read.buffer.references == 2
    await finish(bench.target, "read")
    assert read.buffer.references == 1


async def test_second_read_has_its_own_time() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    bench.read()
    for _ in range(5):
        bench.volume.overdue.count()
    await finish(bench.source, "read", errno.EIO)
    assert bench.volume.overdue.on_target(5) is None


async def test_zeroes_that_go_on_in_instalments_are_not_overdue() -> None:
    """A device that did each of them at once was taken for one that hangs, because there were many."""
    bench = Bench(State.TARGET_SELECTED)
    zero = bench.ask(Kind.ZERO)
    overdue = bench.volume.overdue
    for _ in range(5):
        overdue.count()
        overdue.source_went_on(zero)
    assert overdue.on_target(5) is zero, "the source's instalments are not the target's"
    assert overdue.on_source(5) is None
    overdue.target_went_on(zero)
    assert overdue.on_target(5) is None
    for _ in range(5):
        overdue.count()
    assert overdue.on_source(6) is zero, "it has stopped going on"


async def test_instalments_of_each_side_are_told_to_the_volume() -> None:
    bench = Bench(State.TARGET_SELECTED)
    zero = bench.ask(Kind.ZERO)
    for _ in range(5):
        bench.volume.overdue.count()
    bench.source.pending[0].went_on(zero)
    assert bench.volume.overdue.on_source(5) is None
    assert bench.volume.overdue.on_target(5) is zero
    bench.target.pending[0].went_on(zero)
    assert bench.volume.overdue.on_target(5) is None


async def test_advice_is_answered_when_its_side_leaves() -> None:
    bench = Bench(State.TARGET_SELECTED)
    advice = bench.ask(Kind.CACHE)
    bench.volume.failover.drop(Side.TARGET, withhold=True)
    assert bench.answered == [advice]
    await finish(bench.target, "prefetch")
    assert bench.answered == [advice]


async def test_unaligned_write_waits_for_memory() -> None:
    """With the pool lent to copiers, an application got ENOMEM for a write, from inside `submit`."""
    bench = Bench(State.SETUP, alignment=512, pool_bytes=4096)
    hoard = bench.pool.take(4096)
    write = bench.write(offset=100, length=10, value=9)
    await turn()
    assert not bench.answered
    hoard.release()
    await finish(bench.source, "read")
    await finish(bench.source, "write")
    assert bench.answered == [write]
    assert not write.error
    assert bench.source.content[99:111] == b"\0" + bytes([9]) * 10 + b"\0"


async def test_unaligned_write_fails_where_the_source_cannot_be_read_around_it() -> None:
    """What the target has there is not what the source has, if either has lost a write; so nothing is written anywhere."""
    bench = Bench(State.SOURCE_SELECTED, alignment=512)
    write = bench.write(offset=100, length=10, value=9)
    await finish(bench.target, "read")
    await finish(bench.source, "read", errno.EIO)
    assert bench.answered == [write]
    assert write.error == errno.EIO
    assert [failure.operation for failure in bench.heard.source_failures] == ["read"]
    assert not bench.target.pending


async def test_unaligned_write_goes_on_without_a_target_that_cannot_be_read_around_it() -> None:
    bench = Bench(State.SOURCE_SELECTED, alignment=512)
    write = bench.write(offset=100, length=10, value=9)
    await finish(bench.source, "read")
    await finish(bench.target, "read", errno.EIO)
    await finish(bench.source, "write")
    assert not bench.answered, "the decision about the target is still to come"
    bench.volume.failover.answer_withheld()
    assert (bench.answered, write.error) == ([write], 0)


@pytest.mark.parametrize("moves", [True, False], ids=["the authority moves", "it stays"])
async def test_unaligned_write_asks_for_the_authority_to_move_where_the_source_cannot_be_read_around_it(
    moves: bool,
) -> None:
    bench = Bench(State.TARGET_SELECTED, alignment=512)
    write = bench.write(offset=100, length=10, value=9)
    await finish(bench.target, "read")
    await finish(bench.source, "read", errno.EIO)
    await finish(bench.target, "write")
    assert not bench.answered
    if moves:
        bench.volume.failover.drop(Side.SOURCE, withhold=False)
        bench.volume.failover.answer_withheld()
        assert (bench.answered, write.error) == ([write], 0)
        assert bench.target.content[99:111] == b"\0" + bytes([9]) * 10 + b"\0"
    else:
        bench.volume.failover.keep_authority()
        bench.volume.failover.answer_withheld()
        bench.volume.failover.settle(write)
        assert (bench.answered, write.error) == ([write], errno.EIO)


async def test_unaligned_write_does_not_wait_for_a_side_that_has_left() -> None:
    bench = Bench(State.SYNCING, alignment=512)
    write = bench.write(offset=100, length=10, value=9)
    await finish(bench.source, "read")
    bench.volume.failover.drop(Side.TARGET, withhold=True)
    await finish(bench.source, "write")
    bench.volume.failover.answer_withheld()
    assert (bench.answered, write.error) == ([write], 0)
    await finish(bench.target, "read")
    assert bench.source.content[99:111] == b"\0" + bytes([9]) * 10 + b"\0"


async def test_write_is_answered_only_when_both_sides_have_it() -> None:
    bench = Bench(State.SYNCING)
    write = bench.write(value=3)
    await finish(bench.source, "write")
    assert not bench.answered
    await finish(bench.target, "write")
    assert bench.answered == [write]
    assert bench.target.content == bytes([3]) * 4096 + bytes(SIZE - 4096)


async def test_refused_requests_are_answered_later_not_at_once() -> None:
    bench = Bench(State.SETUP)
    await bench.volume.close()
    write = bench.write()
    assert not bench.answered
    await turn()
    assert (bench.answered, write.error) == ([write], errno.ESHUTDOWN)
