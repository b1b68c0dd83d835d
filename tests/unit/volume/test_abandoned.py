"""What a side holds that hangs and has left the routing takes no memory from the application.

Cause: its buffers stay pinned for as long as it hangs, and they counted against the budget that application requests are taken
from. Failing: with enough under way when a side hung, no request found memory any more, long after the side was out. Passing:
the budget is free as soon as the requests are answered.
"""

import pytest

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.volume.failures import TIMEOUT, Failure
from services.write_cloning.volume.requests import Request
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.stepping import SIZE, Bench, finish, turn

_HANGS = Failure(side=Side.TARGET, operation="write", cause=TIMEOUT)


def _bench(state: State) -> Bench:
    bench = Bench(state)
    bench.client_pool = BufferPool(SIZE)
    return bench


def _let_go(request: Request) -> None:
    """As the export does with what was answered."""
    assert request.buffer is not None
    request.buffer.release()


async def test_writes_that_a_hanging_target_keeps_leave_their_memory_to_others() -> None:
    bench = _bench(State.SOURCE_SELECTED)
    writes = [bench.write(offset, 16384) for offset in range(0, SIZE, 16384)]
    for _ in writes:
        await finish(bench.source, "write")
    assert bench.client_pool.try_take(4096) is None
    bench.volume.failover.target_failed(_HANGS)
    bench.volume.failover.answer_withheld()
    assert bench.answered == writes
    for write in writes:
        _let_go(write)
    assert bench.client_pool.in_use_bytes == 0
    bench.write(length=SIZE, value=2)
    await finish(bench.source, "write")
    for _ in writes:
        await finish(bench.target, "write")  # it goes on: the buffers were pinned all the time
    assert bench.target.content == bytes([1]) * SIZE
    assert bench.client_pool.mapped_bytes == SIZE


async def test_one_buffer_of_many_writes_leaves_once() -> None:
    """As a receive buffer has them."""
    bench = _bench(State.SOURCE_SELECTED)
    first, second = bench.write(), bench.write(4096)
    assert first.buffer is not None
    assert second.buffer is not None
    second.buffer.release()
    first.buffer.retain()
    second.buffer = first.buffer
    for _ in range(2):
        await finish(bench.source, "write")
    bench.volume.failover.target_failed(_HANGS)
    bench.volume.failover.answer_withheld()
    assert bench.client_pool.in_use_bytes == 0
    for each in (first, second):
        _let_go(each)
        await finish(bench.target, "write")
    assert first.buffer.references == 0


@pytest.mark.parametrize("hangs", [Side.SOURCE, Side.TARGET])
async def test_reads_that_a_hanging_side_keeps_leave_their_memory_to_others(hangs: Side) -> None:
    is_source = hangs is Side.SOURCE
    bench = _bench(State.SOURCE_SELECTED if is_source else State.TARGET_SELECTED)
    device, other = (bench.source, bench.target) if is_source else (bench.target, bench.source)
    reads = [bench.read(offset, 16384) for offset in range(0, SIZE, 16384)]
    if is_source:
        bench.move_authority()
    else:
        bench.volume.failover.target_failed(_HANGS)
    for _ in reads:
        await finish(other, "read")
    assert bench.answered == reads
    for read in reads:
        _let_go(read)
    assert bench.client_pool.in_use_bytes == 0
    for _ in reads:
        await finish(device, "read")
    await turn()
    assert bench.pool.in_use_bytes == bench.client_pool.in_use_bytes == 0


async def test_client_that_takes_no_replies_holds_no_memory_but_its_own() -> None:
    """Its reads went on with the volume's memory, and held that for good: nobody else's found any, and no stop was clean."""
    bench = Bench(State.TARGET_SELECTED, pool_bytes=SIZE)
    bench.client_pool = own = BufferPool(SIZE)
    stuck = bench.read(length=SIZE)
    bench.client_pool = BufferPool(SIZE)
    other = bench.read(4096)
    bench.volume.failover.target_failed(_HANGS)
    assert (own.in_use_bytes, bench.pool.in_use_bytes) == (SIZE, 0)
    for _ in range(2):
        await finish(bench.source, "read")
    assert bench.answered == [stuck, other]
