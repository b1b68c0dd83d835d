"""A file that somebody has written to while its host was stopped is not what the host left behind."""

from dataclasses import replace

import pytest

from services.write_cloning.devices.absent import AbsentDevice
from services.write_cloning.host import Host
from services.write_cloning.last_changes import UNKNOWN_NS
from services.write_cloning.volume.marks import DUE
from services.write_cloning.witness import Witness
from shared.messages.admission import Admission
from shared.migration.devices import Side
from shared.migration.refusals import Code
from shared.migration.states import State
from tests.support.standing_host import NAME, REGION, SIZE, StandingHost, standing_host

CLONING = [State.SYNCING, State.SOURCE_SELECTED, State.TARGET_SELECTED]


def admission_to(state: State, earlier: Witness) -> Admission:
    return Admission(
        migration=NAME,
        uuid=earlier.uuid,
        label="resume",
        state=state,
        authority=earlier.authority,
        attempt=earlier.attempt,
        decision=earlier.decision,
        tail_digest=earlier.tail_digest,
        flag_digest="f",
        source_faults=0,
        target_faults=0,
        devices=earlier.devices,
        reason="",
        is_witness_believed=True,
    )


async def stopped(house: StandingHost) -> Witness:
    """What a clean stop leaves behind."""
    assert await house.host.stop()
    await house.host.release()
    (on_disk,), _ = await house.around.witnesses.read_all()
    return on_disk


async def started(house: StandingHost, earlier: Witness, state: State) -> Host:
    host = Host(replace(house.around, run=2))
    await host._open(admission_to(state, earlier), earlier)
    return host


@pytest.mark.parametrize("state", CLONING)
@pytest.mark.parametrize("side", ["source", "target"])
async def test_side_that_was_changed_meanwhile_ends_the_attempt_as_a_target_fault(
    state: State, side: str
) -> None:
    """A target that was overwritten in place was resumed as in sync, and committed."""
    async with standing_host(state) as house:
        earlier = await stopped(house)
        house.drawer.changed[side] += 1
        host = await started(house, earlier, state)
        migration = host.find(NAME)
        marks = migration.apparatus.volume.marks
        assert set(marks.states) == {DUE}, "or a crash before the decision made a partial resync of it"
        await house.until(lambda: migration.witness.state is State.SETUP)
        (fault,) = migration.witness.faults
        assert (fault.side, fault.operation, fault.cause) == (Side.TARGET, "open", f"{side}-changed")
        assert (migration.witness.region_map, migration.apparatus.due_bytes) == ("", SIZE)
        await host.release()


@pytest.mark.parametrize("state", CLONING)
async def test_what_nobody_has_changed_goes_on(state: State) -> None:
    async with standing_host(state) as house:
        earlier = await stopped(house)
        assert earlier.last_changes == (1000, 1000)
        host = await started(house, earlier, state)
        assert host.find(NAME).witness.state is state
        assert host.find(NAME).witness.last_changes == (), "they are of a stop, and this run has not stopped"
        await host.release()


async def test_stop_whose_devices_were_not_seen_to_be_closed_proves_nothing_of_them() -> None:
    """A copy that was given up may land after the stop is recorded."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        assert await house.host.stop()
        (earlier,), _ = await house.around.witnesses.read_all()
        host = await started(house, earlier, State.SOURCE_SELECTED)
        await house.until(lambda: host.find(NAME).witness.state is State.SETUP)
        await host.release()


async def test_what_an_earlier_version_has_stopped_counts_for_what_it_says() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        earlier = replace(await stopped(house), last_changes=())
        house.drawer.changed["target"] += 1
        host = await started(house, earlier, State.SOURCE_SELECTED)
        assert host.find(NAME).witness.state is State.SOURCE_SELECTED
        await host.release()


@pytest.mark.parametrize("changed", [0, 1])
async def test_in_setup_only_the_region_map_is_given_up_for_it(changed: int) -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        await house.migration.apparatus.maps.save(house.migration._map_decisions.distrust)
        host = await started(house, house.witness, State.SETUP)  # after an unclean stop
        assert await house.answer(house.write(offset=REGION)) == 0
        await host.find(NAME).stop()
        await host.release()
        (earlier,), _ = await house.around.witnesses.read_all()
        house.drawer.changed["target"] += changed
        again = Host(replace(house.around, run=3))
        await again._open(admission_to(State.SETUP, earlier), earlier)
        migration = again.find(NAME)
        assert migration.apparatus.due_bytes == (SIZE if changed else REGION)
        assert migration.witness.faults == ()
        assert ("target was changed" in migration.witness.full_because) is bool(changed)
        await again.release()


async def after_an_unclean_stop_with_the_target_in_use(house: StandingHost) -> Host:
    """Nothing differs by the map, and somebody else has the target when the host starts again."""
    await house.migration.apparatus.maps.save(house.migration._map_decisions.distrust)
    house.drawer.target_refused = Code.DEVICE_BUSY
    host = await started(house, house.witness, State.SETUP)
    assert isinstance(host.find(NAME).apparatus.target, AbsentDevice)
    return host


async def test_target_that_others_have_when_the_host_starts_is_copied_whole() -> None:
    """Who had claimed the clone wrote to it; the map knew nothing of it, and `sync` left that as in sync."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        host = await after_an_unclean_stop_with_the_target_in_use(house)
        witness = host.find(NAME).witness
        assert (witness.region_map, host.find(NAME).apparatus.due_bytes) == ("", SIZE)
        assert "others may have written to it" in witness.full_because
        await host.release()


async def test_side_that_was_not_open_is_left_in_nobody_knows_what_state() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        host = await after_an_unclean_stop_with_the_target_in_use(house)
        await host.find(NAME).stop()
        await host.release()
        (earlier,), _ = await house.around.witnesses.read_all()
        assert earlier.last_changes == (1000, UNKNOWN_NS)
        house.drawer.target_refused = None
        again = Host(replace(house.around, run=3))
        await again._open(admission_to(State.SETUP, earlier), earlier)
        assert "others may have written to it" in again.find(NAME).witness.full_because
        await again.release()
