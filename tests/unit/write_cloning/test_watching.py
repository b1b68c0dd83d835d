"""The watch counts time, whatever the devices do meanwhile; so a device that hangs is given up after `io_timeout`.

Cause: the loop that counts ticks waited for its own periodic flush. Failing: while a device hung that it flushed, hardly any time
passed, and requests waited several times as long as they should. Passing: ticks go on while a flush is under way.
"""

import asyncio

import pytest

from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.standing_host import PromptDevice, StandingHost, standing_host

_IO_TIMEOUT_S = 0.8  # 8 ticks


def _flushes(device: PromptDevice) -> int:
    return sum(request.operation == "flush" for request in device.pending)


async def _pass(house: StandingHost, ticks: int) -> None:
    reads = house.migration.apparatus.volume._reads
    until = reads.tick + ticks
    await house.until(lambda: reads.tick >= until)


async def test_time_passes_while_the_periodic_flush_hangs() -> None:
    async with standing_host(
        State.SOURCE_SELECTED, io_timeout_s=_IO_TIMEOUT_S, target_flush_interval_s=0.0
    ) as house:
        house.target.hanging.add("flush")
        await house.until(lambda: _flushes(house.target))
        await _pass(house, ticks=3)
        assert _flushes(house.target) == 1, "never two at once"
        house.target.let_go()
        await house.until(lambda: not _flushes(house.target))
        assert house.witness.state is State.SOURCE_SELECTED


@pytest.mark.parametrize("side", list(Side))
async def test_write_to_a_device_that_hangs_under_the_periodic_flush_waits_for_one_timeout(
    side: Side,
) -> None:
    async with standing_host(
        State.TARGET_SELECTED, io_timeout_s=_IO_TIMEOUT_S, target_flush_interval_s=0.0
    ) as house:
        device = house.source if side is Side.SOURCE else house.target
        loop = asyncio.get_running_loop()
        await house.answer(house.write(offset=16384))  # grows clean by flushes of both sides
        device.hanging.update({"write", "flush"})
        await house.until(lambda: _flushes(device))
        begun = loop.time()
        assert await house.answer(house.write(7)) == 0
        assert loop.time() - begun < 2 * _IO_TIMEOUT_S
        assert house.witness.authority is side.other or house.witness.state is State.SETUP


async def test_flush_under_way_ends_with_the_watch() -> None:
    async with standing_host(
        State.SOURCE_SELECTED, io_timeout_s=_IO_TIMEOUT_S, target_flush_interval_s=0.0
    ) as house:
        watch = house.tasks.create_task(house.migration.apparatus.watch())  # beside the host's own
        house.target.hanging.add("flush")
        await house.until(lambda: _flushes(house.target) == 2)
        watch.cancel()
        await asyncio.wait([watch])
        flushes = [task for task in asyncio.all_tasks() if task.get_name() == "flush the clone of vol1"]
        assert len(flushes) == 1
