"""A range that the source failed to write is copied to the target again; a device that hangs keeps nothing from others."""

import asyncio

from services.write_cloning.volume.repair import copy_again
from shared.migration.states import State
from tests.support.stepping import Bench, finish, turn


async def test_memory_that_a_hanging_target_keeps_is_no_want_of_the_application() -> None:
    """It counted against the pool for ever: writes to a sound source that need memory of it were never sent."""
    bench = Bench(State.SOURCE_SELECTED, alignment=4096, pool_bytes=16 << 10)
    async with asyncio.TaskGroup() as tasks:
        repairs = [
            tasks.create_task(
                copy_again(
                    bench.source,
                    bench.target,
                    low,
                    low + 8192,
                    bench.pool,
                    is_wanted=lambda: True,
                    flush_failed=print,
                )
            )
            for low in (0, 8192)
        ]
        await turn()
        for operation in ("read", "flush") * 2:
            await finish(bench.source, operation)
        assert [request.operation for request in bench.target.pending] == ["write"] * 2
        assert bench.pool.in_use_bytes == bench.pool.budget_bytes
        for repair in repairs:
            repair.cancel()
    assert bench.pool.in_use_bytes == 0
    bench.write(100, 200)  # parts of a block: the rest of it is read into memory of the pool
    await turn()
    assert bench.source.pending
    for _ in range(2):
        await finish(bench.target, "write")
    assert bench.pool.in_use_bytes <= bench.pool.budget_bytes
