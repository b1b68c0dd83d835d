"""What the decision point waits for ends when the target leaves the routing: writes are withheld until that is decided.

Cause: a command waited its own `io_timeout` for a flush of a target that was out already. Failing: writes that the target did not
answer waited for a second time-out. Passing: the command is refused at once, and the decision follows.
"""

import asyncio
import errno

import pytest

from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Step
from tests.support.standing_host import StandingHost, standing_host


async def _until_flushed_for(house: StandingHost, trigger: str) -> None:
    await house.until(
        lambda: (
            Step.FLUSH_TARGET in house.steps_of(trigger)
            and any(request.operation == "flush" for request in house.target.pending)
        )
    )


@pytest.mark.parametrize(
    ("state", "command"), [(State.SOURCE_SELECTED, "select-target"), (State.TARGET_SELECTED, "commit")]
)
async def test_command_that_flushes_a_target_that_fails_meanwhile_is_refused_at_once(
    state: State, command: str
) -> None:
    async with standing_host(state) as house, asyncio.TaskGroup() as tasks:
        house.target.hanging.add("flush")

        async def refused() -> Refusal:
            with pytest.raises(Refusal) as refusal:
                await house.ask(command)
            return refusal.value

        asked = tasks.create_task(refused())
        await _until_flushed_for(house, command)
        house.target.failing["write"] = errno.EIO
        assert await house.answer(house.write(7)) == 0
        assert (await asked).code is Code.DEVICE_FAILED
        assert house.witness.state is State.SETUP
        assert await house.read_byte() == 7


async def test_move_of_the_authority_to_a_target_that_fails_meanwhile_is_given_up_at_once() -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        house.target.hanging.add("flush")
        house.source.failing["write"] = errno.EIO
        first = house.write(7)
        await _until_flushed_for(house, "source-fault")
        house.target.failing["write"] = errno.EIO
        second = house.write(8, offset=8192)
        assert await house.answer(first) == errno.EIO
        assert await house.answer(second) == errno.EIO
        assert (house.witness.state, house.witness.authority) == (State.SETUP, Side.SOURCE)


async def test_move_of_the_authority_goes_on_when_the_source_fails_once_more() -> None:
    """Only the target's leaving ends the wait: the source is what the move leads away from."""
    async with standing_host(State.TARGET_SELECTED) as house:
        house.target.hanging.add("flush")
        house.source.failing["write"] = errno.EIO
        first = house.write(7)
        await _until_flushed_for(house, "source-fault")
        second = house.write(8, offset=8192)
        await house.until(lambda: house.source.log.count("write") >= 2)
        house.target.let_go()
        assert [await house.answer(first), await house.answer(second)] == [0, 0]
        assert house.witness.authority is Side.TARGET
