"""A read that the source fails while both sides are in sync: the target stands in for it, and a flush proves that it may.

A device's cache that has lost a write reads as before it, and says so at the next flush alone. Without that flush an application
was given what the target had held before the copy.
"""

import errno

from shared.migration.states import State
from tests.support.stepping import Bench, finish, turn


async def test_answer_waits_for_the_flush_that_proves_it() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    read = bench.read()
    await finish(bench.source, "read", errno.EIO)
    await finish(bench.target, "read")
    assert not bench.answered
    await finish(bench.target, "flush")
    assert bench.answered == [read]
    assert not read.error
    assert [failure.cause for failure in bench.heard.source_failures] == ["EIO"]
    assert not bench.heard.target_failures


async def test_target_that_has_lost_writes_leaves_and_the_source_s_error_is_answered() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    read = bench.read()
    await finish(bench.source, "read", errno.EREMOTEIO)
    await finish(bench.target, "read")
    await finish(bench.target, "flush", errno.EIO)
    assert bench.answered == [read]
    assert read.error == errno.EREMOTEIO
    assert [failure.operation for failure in bench.heard.target_failures] == ["flush"]


async def test_target_that_cannot_be_read_either_is_at_fault() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    read = bench.read()
    await finish(bench.source, "read", errno.EREMOTEIO)
    await finish(bench.target, "read", errno.EIO)
    assert bench.answered == [read]
    assert read.error == errno.EREMOTEIO
    failure = bench.heard.target_failures[0]
    assert (failure.operation, failure.offset, failure.cause) == ("read", read.offset, "EIO")


async def test_target_that_hangs_in_the_flush_is_not_waited_for() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    read = bench.read()
    await finish(bench.source, "read", errno.EIO)
    for _ in range(2):
        bench.volume.overdue.count()
    await finish(bench.target, "read")
    assert bench.volume.overdue.on_target(2) is None, "the flush has its own time"
    for _ in range(2):
        bench.volume.overdue.count()
    assert bench.volume.overdue.on_target(3) is read
    bench.volume.failover.target_timed_out(read)
    assert bench.answered == [read]
    assert read.error == errno.EIO
    assert read.buffer is not None
    assert read.buffer.references == 2
    await finish(bench.target, "flush")
    assert read.buffer.references == 1


async def test_source_that_stands_in_needs_no_proof() -> None:
    """It is the authority, and all that is left: whatever is read from it next would not be proved either."""
    bench = Bench(State.TARGET_SELECTED)
    read = bench.read()
    await finish(bench.target, "read", errno.EIO)
    await finish(bench.source, "read")
    await turn()
    assert bench.answered == [read]
    assert not bench.source.pending
