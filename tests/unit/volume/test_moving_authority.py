"""The source fails while reads come from the target. No write is answered as done that the side with the authority misses.

Each of the first three lost an acknowledged write: the source's error was forgiven because «the target has it», or the
target's because the move was off, without a look at what the other side had said.
"""

import errno

import pytest

from services.write_cloning.volume.requests import Kind
from shared.migration.devices import Side
from shared.migration.states import State, routing_of
from tests.support.stepping import Bench, finish, turn


async def test_write_that_both_sides_failed_is_no_success_after_the_move() -> None:
    bench = Bench(State.TARGET_SELECTED)
    write = bench.write()
    await finish(bench.source, "write", errno.EIO)
    bench.volume.failover.begin_move()
    await finish(bench.target, "write", errno.ENOSPC)
    bench.move_authority()
    bench.volume.failover.answer_withheld()
    assert bench.answered == [write]
    assert write.error == errno.ENOSPC


async def test_write_that_the_source_failed_last_is_no_success_after_the_move() -> None:
    bench = Bench(State.TARGET_SELECTED)
    write = bench.write()
    bench.volume.failover.begin_move()
    await finish(bench.target, "write", errno.ENOSPC)
    await finish(bench.source, "write", errno.EIO)
    bench.move_authority()
    bench.volume.failover.answer_withheld()
    assert bench.answered == [write]
    assert write.error == errno.ENOSPC


async def test_write_that_the_source_failed_is_no_success_when_the_move_is_off() -> None:
    bench = Bench(State.TARGET_SELECTED)
    write, flush = bench.write(), bench.ask(Kind.FLUSH)
    bench.volume.failover.begin_move()
    for operation, error in (("write", errno.EIO), ("flush", errno.EROFS)):
        await finish(bench.target, operation, errno.ENOSPC)
        await finish(bench.source, operation, error)
    bench.volume.failover.end_move(moved=False)
    assert len(bench.heard.target_failures) == 1
    bench.volume.failover.answer_withheld()
    assert (write.error, flush.error) == (errno.EIO, errno.EROFS)
    assert len(bench.answered) == 2


async def test_write_that_only_the_source_failed_succeeds_once_the_authority_has_moved() -> None:
    bench = Bench(State.TARGET_SELECTED)
    write = bench.write()
    await finish(bench.target, "write")
    await finish(bench.source, "write", errno.EIO)
    assert not bench.answered
    bench.volume.failover.begin_move()
    bench.move_authority()
    assert not bench.answered
    bench.volume.failover.answer_withheld()
    assert bench.answered == [write]
    assert not write.error


async def test_write_that_waits_for_a_source_that_is_dropped_is_answered() -> None:
    bench = Bench(State.TARGET_SELECTED)
    write = bench.write(value=7)
    await finish(bench.target, "write")
    assert write.buffer is not None
    bench.volume.failover.begin_move()
    bench.move_authority()
    assert bench.answered == [write]
    assert write.buffer.references == 2, "the source may still write from it"
    await finish(bench.source, "write")
    assert write.buffer.references == 1


async def test_source_error_is_answered_after_both_sides_were_made_equal_when_the_authority_stays() -> None:
    bench = Bench(State.TARGET_SELECTED)
    failed, other = bench.write(), bench.write(offset=8192)
    await finish(bench.target, "write")
    await finish(bench.target, "write")
    await finish(bench.source, "write", errno.EIO)
    await finish(bench.source, "write")
    assert not bench.answered
    bench.volume.failover.keep_authority()
    bench.volume.failover.answer_withheld()
    assert bench.answered == [other]
    assert bench.heard.differing == [failed]
    bench.volume.failover.settle(failed)
    assert bench.answered == [other, failed]
    assert (other.error, failed.error) == (0, errno.EIO)


async def test_source_that_does_not_answer_loses_the_authority() -> None:
    bench = Bench(State.TARGET_SELECTED)
    write = bench.write()
    await finish(bench.target, "write")
    for _ in range(3):
        bench.volume.overdue.count()
    overdue = bench.volume.overdue.on_source(1)
    assert overdue is write
    bench.volume.failover.source_timed_out(overdue)
    assert [loss.cause for loss in bench.heard.source_losses] == ["timeout"]
    assert bench.volume.overdue.on_source(1) is None, "one decision at a time"
    bench.volume.failover.begin_move()
    bench.move_authority()
    bench.volume.failover.answer_withheld()
    assert bench.answered == [write]
    assert not write.error


async def test_source_write_is_never_overdue_while_reads_come_from_the_source() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    bench.write()
    await finish(bench.target, "write")
    for _ in range(3):
        bench.volume.overdue.count()
    assert bench.volume.overdue.on_source(1) is None


async def test_dropped_target_stays_out_whatever_is_routed() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    first = bench.write()
    await finish(bench.target, "write", errno.EIO)
    await finish(bench.source, "write")
    bench.volume.route(State.TARGET_SELECTED, routing_of(State.TARGET_SELECTED, Side.SOURCE))
    second = bench.write(offset=8192)
    bench.read()
    assert not bench.target.pending
    await finish(bench.source, "write")
    await finish(bench.source, "read")
    assert [each for each in (first, second) if each in bench.answered] == []
    bench.volume.failover.answer_withheld()
    await turn()
    assert first in bench.answered
    assert second in bench.answered


async def test_write_is_made_equal_once_however_many_decisions_it_waits_for() -> None:
    """The second copy landed on what the application had written once the first was done: an acknowledged write was lost."""
    bench = Bench(State.TARGET_SELECTED)
    failover = bench.volume.failover
    writes = [bench.write(offset) for offset in (0, 8192)]
    for write in writes:  # each time the authority cannot move
        await finish(bench.target, "write")
        await finish(bench.source, "write", errno.EIO)
        failover.keep_authority()
        failover.answer_withheld()
        assert bench.heard.differing[-1] is write
    assert bench.heard.differing == writes
    for write in writes:
        failover.settle(write)
        assert write.error == errno.EIO
    assert bench.answered == writes


@pytest.mark.parametrize("moved", [True, False])
async def test_read_that_the_target_fails_in_a_move_waits_for_its_end(moved: bool) -> None:
    """The source was about to be dropped for what it had lost, and gave an application what was there before."""
    bench = Bench(State.TARGET_SELECTED)
    bench.ask(Kind.FLUSH)
    await finish(bench.target, "flush")
    await finish(bench.source, "flush", errno.EIO)
    bench.volume.failover.begin_move()
    read = bench.read()
    await finish(bench.target, "read", errno.EREMOTEIO)
    assert not bench.source.pending
    assert not bench.answered
    if moved:
        bench.move_authority()
        assert bench.answered == [read]
        assert read.error == errno.EREMOTEIO
        return
    bench.volume.failover.end_move(moved=False)
    assert [failure.operation for failure in bench.heard.target_failures] == ["read"]
    await finish(bench.source, "read")
    assert bench.answered == [read]
    assert not read.error
