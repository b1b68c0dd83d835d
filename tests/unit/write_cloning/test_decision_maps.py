"""The witness names the map that is trusted, in the same write as the decision, and none where a decision ends its use."""

import errno

import pytest

from services.write_cloning.volume.marks import CLEAN
from shared.migration.refusals import Refusal
from shared.migration.states import State
from shared.migration.table import Step
from tests.support.standing_host import NAME, REGION, SIZE, standing_host

CLONING = [State.SYNCING, State.SOURCE_SELECTED, State.TARGET_SELECTED]


@pytest.mark.parametrize("state", CLONING)
async def test_witness_trusts_a_map_of_the_attempt_while_writes_are_cloned(state: State) -> None:
    async with standing_host(state) as house:
        assert house.witness.region_map == "1-1"
        assert f"{NAME}.1-1" in house.maps.files


@pytest.mark.parametrize("state", CLONING)
async def test_abort_and_target_fault_leave_no_map_that_is_trusted(state: State) -> None:
    async with standing_host(state) as house:
        await house.ask("abort")
        assert (house.witness.region_map, house.witness.full_because) == ("", "the last attempt was aborted")
        assert house.migration.apparatus.due_bytes == SIZE
    async with standing_host(state) as house:
        house.target.failing["write"] = errno.EIO
        assert await house.answer(house.write()) == 0
        assert house.witness.region_map == ""
        assert house.witness.full_because == "a device failed in the last attempt"


async def test_commit_ends_the_map() -> None:
    async with standing_host(State.COMMITTED) as house:
        assert (house.witness.region_map, house.witness.full_because) == ("", "the target has taken over")


async def test_sync_whose_witness_cannot_be_written_leaves_none_behind_and_can_be_repeated() -> None:
    async with standing_host() as house:

        async def fail() -> None:
            house.storage.puts_to_fail = 2  # the decision, and taking it back

        house.before["sync", Step.WRITE_WITNESS] = fail
        with pytest.raises(Refusal):
            await house.ask("sync")
        assert house.witness.region_map == ""
        assert await house.answer(house.write()) == 0
        await house.ask("sync")
        await house.until(lambda: house.witness.state is State.SOURCE_SELECTED)
        assert house.witness.region_map == "1-1"
        assert house.source.content == house.target.content


async def test_sync_goes_on_without_a_map_where_none_can_be_written() -> None:
    async with standing_host() as house:
        house.maps.fails = 1
        await house.ask("sync")
        await house.until(lambda: house.witness.state is State.SOURCE_SELECTED)
        assert house.witness.region_map == ""
        assert "No space left" in house.witness.full_because
        assert await house.answer(house.write()) == 0


async def test_map_that_fails_under_a_write_is_distrusted_and_the_write_succeeds() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        marks = house.migration.apparatus.volume.marks
        marks.clean_all_but_due()
        assert set(marks.states) == {CLEAN}
        house.maps.fails = 1
        write = house.write(offset=REGION)
        assert await house.answer(write) == 0
        assert house.witness.region_map == ""
        assert "No space left" in house.witness.full_because


async def test_what_is_set_up_anew_under_an_old_name_inherits_no_map() -> None:
    async with standing_host() as house:
        assert house.witness.region_map == ""
        assert house.migration.apparatus.maps.full_because == "nothing has been copied yet"
