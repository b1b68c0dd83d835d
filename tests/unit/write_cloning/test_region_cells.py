"""The picture of the regions: the worst of each share, and a bounded look however many regions there are."""

import asyncio
import errno
import time

import pytest

from services.write_cloning import region_cells as region_cells_module
from services.write_cloning.copier import Copier
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.region_cells import CELLS_MAX, LOOKED_AT_ONCE_MAX, RegionCells
from services.write_cloning.throttle import Throttle
from services.write_cloning.volume.marks import AGING, ASKED, CLEAN, COOLING, DUE, HOT, MARKING, Marks
from shared.messages.status import RegionCell
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.stepping import REGION, SIZE, Bench, finish, turn

SOURCE = Side.SOURCE


def marked(states: list[int]) -> Marks:
    marks = Marks(len(states), bytes(-(-len(states) // 8)), state=HOT, want_round=lambda: None)
    marks.states[:] = bytes(states)
    return marks


def copier_of(bench: Bench) -> Copier:
    return Copier(
        volume=bench.volume,
        listener=bench.heard,
        source=bench.source,
        target=bench.target,
        pool=BufferPool(1 << 24),
        region_size_bytes=REGION,
        throttle=Throttle(),
        io_timeout_s=30,
    )


def test_every_letter_is_told_apart() -> None:
    assert len({cell.value for cell in RegionCell}) == len(RegionCell)


def test_before_a_sync_what_a_sync_would_copy_differs() -> None:
    states = [CLEAN, DUE, HOT, CLEAN, ASKED]
    assert RegionCells(5).look(State.SETUP, SOURCE, marked(states), None) == "sxxsx"


@pytest.mark.parametrize("state", [ASKED, MARKING, AGING, COOLING, HOT])
def test_in_sync_what_was_written_lately_is_dirty(state: int) -> None:
    cells = RegionCells(3)
    assert cells.look(State.SOURCE_SELECTED, SOURCE, marked([CLEAN, state, CLEAN]), None) == "sds"


def test_without_a_map_what_is_in_sync_is_in_sync() -> None:
    assert RegionCells(3).look(State.TARGET_SELECTED, SOURCE, Marks.of_nothing(3), None) == "sss"


def test_once_the_target_has_taken_over_there_is_nothing_to_compare() -> None:
    assert RegionCells(3).look(State.COMMITTED, Side.TARGET, Marks.of_nothing(3), None) == ""
    assert RegionCells(3).look(State.TARGET_SELECTED, Side.TARGET, Marks.of_nothing(3), None) == ""


def test_share_tells_the_worst_that_is_in_it() -> None:
    count = 4 * CELLS_MAX
    states = [CLEAN] * count
    states[5], states[9], states[10] = HOT, HOT, DUE
    told = RegionCells(count).look(State.SETUP, SOURCE, marked(states), None)
    assert len(told) == CELLS_MAX
    assert told[:4] == "sxxs"


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 1000, 65537])
def test_every_region_is_in_the_share_that_it_is_looked_for_in(count: int) -> None:
    cells = RegionCells(count)
    for region in {0, count // 3, count // 2, count - 1}:
        cell = cells._cell_of(region)
        assert cells._begin(cell) <= region < cells._begin(cell + 1)
    assert cells._begin(min(CELLS_MAX, count)) == count


async def test_copying_shows_where_it_is_what_is_done_and_what_could_not_be_read() -> None:
    bench = Bench(State.SYNCING)
    bench.source.content[:] = bytes([1]) * SIZE
    copier = copier_of(bench)
    count = SIZE // REGION
    cells = RegionCells(count)

    def look() -> str:
        return cells.look(State.SYNCING, SOURCE, Marks.of_nothing(count), copier)

    def is_stuck() -> bool:
        return copier.is_stuck

    assert look() == "x" * count
    async with asyncio.TaskGroup() as tasks:
        copying = tasks.create_task(copier.run())
        await turn()
        await turn()
        assert "c" in look()
        await finish(bench.source, "read", errno.EIO)
        assert not is_stuck(), "the others are still to come"
        while not copying.done():
            for device, operation in ((bench.source, "read"), (bench.target, "write")):
                if any(each.operation == operation for each in device.pending):
                    await finish(device, operation)
            await turn()
    assert sorted(look()) == sorted("s" * (count - 1) + "u")
    assert not copier.at_work
    assert is_stuck(), "and so there is no rate, and no end"
    assert copier.unreadable_regions == (look().index("u"),)


def test_look_at_many_millions_of_regions_is_bounded() -> None:
    """16 TiB in regions of 64 KiB would take a tenth of a second to look at whole, and the loop waits meanwhile."""
    count = 1 << 28
    per_cell = count // CELLS_MAX
    assert LOOKED_AT_ONCE_MAX // per_cell < CELLS_MAX
    cells = RegionCells(count)
    assert len(cells._next_cells()) * per_cell <= LOOKED_AT_ONCE_MAX
    seen = {
        cell for _ in range(-(-CELLS_MAX // (LOOKED_AT_ONCE_MAX // per_cell))) for cell in cells._next_cells()
    }
    assert seen == set(range(CELLS_MAX))


def test_largest_look_takes_some_milliseconds() -> None:
    marks = Marks.of_nothing(LOOKED_AT_ONCE_MAX)
    marks.states[:] = bytes([CLEAN]) * LOOKED_AT_ONCE_MAX  # nothing is found early
    cells = RegionCells(LOOKED_AT_ONCE_MAX)
    cells.look(State.SETUP, SOURCE, marks, None)
    took_s = min(_timed(lambda: cells.look(State.SETUP, SOURCE, marks, None)) for _ in range(5))
    assert took_s < 0.05
    assert region_cells_module.CELLS_MAX == 256


def _timed(work: object) -> float:
    began = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - began
