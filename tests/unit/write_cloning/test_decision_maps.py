"""The witness names the map that is trusted, in the same write as the decision, and none where a decision ends its use."""

import errno
from dataclasses import replace

import pytest

from services.write_cloning.executor import Decision
from services.write_cloning.host import Host
from services.write_cloning.map_takeover import taken_over
from services.write_cloning.volume.marks import CLEAN, DUE
from services.write_cloning.witness import Witness
from shared.messages.admission import Admission
from shared.migration.devices import Side
from shared.migration.refusals import Refusal
from shared.migration.states import Flag, State
from shared.migration.table import Facts, Step, Trigger, decide
from tests.support.standing_host import NAME, REGION, SIZE, StandingHost, standing_host
from tests.support.stepping import turn

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


def admission_to_setup(earlier: Witness) -> Admission:
    return Admission(
        migration=NAME,
        uuid=earlier.uuid,
        label="unclean",
        state=State.SETUP,
        authority=Side.SOURCE,
        attempt=earlier.attempt,
        decision=earlier.decision + 1,
        tail_digest=earlier.tail_digest,
        flag_digest="",
        source_faults=0,
        target_faults=0,
        devices=earlier.devices,
        reason="",
        is_witness_believed=True,
    )


async def after_an_unclean_stop(house: StandingHost) -> Host:
    """The next run, back in `setup`, with a map that says that nothing differs."""
    await house.migration.apparatus.maps.save(house.migration._map_decisions.distrust)
    host = Host(replace(house.around, run=2))
    await host._open(admission_to_setup(house.witness), house.witness)
    return host


@pytest.mark.parametrize("map_writes_failing", [1, 0])
async def test_sync_that_neither_map_nor_witness_took_trusts_no_map_that_records_nothing(
    map_writes_failing: int,
) -> None:
    """A map that was given up for a `sync` that did not come about stayed in the witness: later writes went into no map."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        host = await after_an_unclean_stop(house)
        migration = host.find(NAME)
        assert migration.witness.region_map == migration.apparatus.maps.map_id != ""
        house.maps.fails = map_writes_failing
        house.storage.puts_to_fail = 1
        row = decide(Facts(state=State.SETUP, flag=Flag.SET), Trigger.SYNC)
        with pytest.raises(Refusal):
            await migration._executor.carry_out(
                Decision(row=row, operation_id="o", attempt=2, flag_digest="f2")
            )
        migration.apparatus.volume.release()
        assert await house.answer(house.write(offset=REGION)) == 0
        (on_disk,), _ = await house.around.witnesses.read_all()
        again = await taken_over(
            admission_to_setup(on_disk), on_disk, files=house.maps, region_size_bytes=REGION, run=3
        )
        assert again.full_because or again.marks.states[1] == DUE
        assert bool(again.full_because) == bool(map_writes_failing)
        await host.release()


async def test_write_that_a_partial_sync_holds_reaches_both_sides_though_the_host_stops() -> None:
    """It went to the source alone, and what had to be copied was chosen by then: the sides differed, and were called in sync."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        host = await after_an_unclean_stop(house)
        migration = host.find(NAME)
        volume = migration.apparatus.volume
        held = []

        async def stop_meanwhile() -> None:
            held.append(house.write(0xEE, offset=REGION))
            house.tasks.create_task(volume.close())
            await turn()
            await turn()

        house.storage.before_put = stop_meanwhile
        row = decide(Facts(state=State.SETUP, flag=Flag.SET), Trigger.SYNC)
        await migration._executor.carry_out(Decision(row=row, operation_id="o", attempt=2, flag_digest="f2"))
        assert await house.answer(held[0]) == 0
        assert house.source.content == house.target.content
        assert house.source.content[REGION] == 0xEE
        await host.release()


async def test_what_becomes_due_while_the_witness_takes_a_partial_sync_is_copied() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        host = await after_an_unclean_stop(house)
        migration = host.find(NAME)
        marks = migration.apparatus.maps.marks

        async def mark() -> None:
            marks.states[1] = DUE

        house.storage.before_put = mark
        row = decide(Facts(state=State.SETUP, flag=Flag.SET), Trigger.SYNC)
        await migration._executor.carry_out(Decision(row=row, operation_id="o", attempt=2, flag_digest="f2"))
        assert migration.apparatus.due_regions == bytes([0, 1, 0, 0])
        await host.release()
