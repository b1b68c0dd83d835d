"""A client that asks what is data is not kept waiting by a device that hangs.

The question waited for the target for as long as that hung, though it had left the routing long before, and with the question
the client, for which this is an answer like any other.
"""

import asyncio
from collections.abc import Sequence

import pytest

from services.write_cloning.devices.interface import Extent
from shared.migration.devices import Side
from shared.migration.states import State
from shared.nbd.constants import ALLOCATION_CONTEXT
from tests.support.stepping import SIZE, Bench, turn


async def _never(_offset: int, _length: int, _most: int | None = None) -> Sequence[Extent]:
    await asyncio.Event().wait()
    raise AssertionError


async def _all_holes(offset: int, length: int, _most: int | None = None) -> Sequence[Extent]:
    return [Extent(offset, length, is_hole=True)]


async def _asked(bench: Bench) -> Sequence[tuple[int, int]]:
    return await bench.volume.block_status(0, SIZE, ALLOCATION_CONTEXT, 4)


async def test_side_that_leaves_the_routing_is_asked_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(State.TARGET_SELECTED)
    monkeypatch.setattr(bench.source, "extents", _all_holes)
    monkeypatch.setattr(bench.target, "extents", _never)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(_asked(bench))
        await turn()
        assert not asked.done()
        bench.volume.failover.drop(Side.TARGET, withhold=True)
        assert await asked == [(SIZE, 3)], "what the source says"


async def test_side_that_takes_too_long_is_answered_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(State.SETUP, patience_s=0.01)
    monkeypatch.setattr(bench.source, "extents", _never)
    async with asyncio.timeout(5):
        assert await _asked(bench) == [(SIZE, 0)], "everything is data"


async def test_side_that_leaves_when_it_has_just_answered_does_no_harm() -> None:
    bench = Bench(State.TARGET_SELECTED)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_asked(bench)) for _ in range(2)]
        await asyncio.sleep(0)
        bench.volume.failover.drop(Side.TARGET, withhold=True)
        bench.volume.failover.drop(Side.TARGET, withhold=True)
        assert [await each for each in asked] == [[(SIZE, 3)]] * 2
