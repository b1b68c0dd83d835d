"""`verify` at the decision point: where it is allowed, what it leads to, what ends it, and what `commit` asks of it."""

import asyncio
import errno

import pytest

from shared.messages.control import CommandReply, CommitRequest, PlainRequest
from shared.messages.status import Outcome, VerificationView
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Step
from tests.support.standing_host import REGION, SIZE, StandingHost, standing_host

_IN_SYNC = [State.SOURCE_SELECTED, State.TARGET_SELECTED]
BLOCK = 4096


def view(house: StandingHost) -> VerificationView:
    verification = house.migration.apparatus.verification
    assert verification is not None
    return verification.view()


async def ended(house: StandingHost) -> VerificationView:
    await house.until(lambda: view(house).outcome is not None)
    return view(house)


async def begun(house: StandingHost) -> CommandReply:
    """A comparison that waits for the source; `let_go` lets it go on."""
    house.source.hanging.add("read")
    return await house.ask("verify", PlainRequest(operation_id="op-first"))


async def refused(house: StandingHost, command: str, payload: object | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await house.ask(command, payload)
    return caught.value


# ------------------------------------------------------------------ what it leads to


@pytest.mark.parametrize("state", _IN_SYNC)
async def test_equal_sides_are_noted_in_the_witness_and_change_no_state(state: State) -> None:
    async with standing_host(state) as house:
        decision = house.witness.decision
        reply = await house.ask("verify")
        assert (reply.state, reply.message) == (state, "")
        assert reply.verification is not None
        now = await ended(house)
        assert (now.outcome, now.compared_bytes, now.id) == (Outcome.EQUAL, SIZE, reply.verification.id)
        assert house.witness.verified_at is not None
        assert house.host.status().migrations[0].verified_at == house.witness.verified_at
        assert (house.witness.state, house.witness.decision) == (state, decision)
        assert not house.steps
        if state is State.TARGET_SELECTED:
            assert (await house.ask("commit", CommitRequest(verified=True))).state is State.COMMITTED


@pytest.mark.parametrize("state", _IN_SYNC)
async def test_difference_is_a_target_fault_and_leads_back_to_setup(state: State) -> None:
    async with standing_host(state) as house:
        house.target.content[REGION + BLOCK + 1] ^= 1
        await house.ask("verify")
        ledger = await house.settled(State.SETUP)
        fault = ledger.faults[0]
        assert (fault.side, fault.operation, fault.cause) == (Side.TARGET, "verify", "differs")
        assert (fault.offset, fault.length) == (REGION + BLOCK, BLOCK)
        assert view(house).outcome is Outcome.DIFFERENT
        assert house.witness.verified_at is None
        assert (await refused(house, "commit")).code is Code.NOT_ALLOWED
        assert (await house.ask("sync")).attempt == 2  # the next attempt mends it


async def test_source_that_cannot_be_read_is_a_source_fault_and_nothing_is_verified() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.source.failing["read"] = errno.EIO
        await house.ask("verify")
        now = await ended(house)
        assert (now.outcome, house.witness.verified_at) == (Outcome.INCOMPLETE, None)
        ledger = await house.settled(State.SOURCE_SELECTED)
        assert {(fault.side, fault.operation) for fault in ledger.faults} == {(Side.SOURCE, "read")}


@pytest.mark.parametrize("state", _IN_SYNC)
async def test_target_is_not_blamed_for_what_the_source_has_lost(state: State) -> None:
    """A cache that could not write back gives old data, and the next flush alone tells. The target has the write."""
    async with standing_host(state) as house:
        old = bytes(house.source.content[:4096])
        assert await house.answer(house.write(7)) == 0
        house.source.content[:4096] = old
        house.source.failing["flush"] = errno.EIO
        await house.ask("verify")
        now = await ended(house)
        assert now.outcome is Outcome.INCOMPLETE
        assert "the source, which may have lost writes, could not be flushed: EIO" in now.detail
        if state is State.SOURCE_SELECTED:
            await house.ask("select-target")
        await house.until(lambda: house.migration.reporter.is_settled)
        ledger = await house.settled(State.TARGET_SELECTED)
        assert {(fault.side, fault.operation) for fault in ledger.all_faults} == {(Side.SOURCE, "flush")}
        assert await house.read_byte() == 7


async def test_source_that_is_slow_to_flush_blames_nobody() -> None:
    async with standing_host(State.SOURCE_SELECTED, io_timeout_s=0.05) as house:
        house.target.content[5000] ^= 1
        house.source.hanging.add("flush")
        await house.ask("verify")
        now = await ended(house)
        assert (now.outcome, "could not be flushed: timeout" in now.detail) == (Outcome.INCOMPLETE, True)
        house.source.let_go()
        assert not (await house.ledger()).all_faults


async def test_witness_that_cannot_be_written_leaves_nothing_verified() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.storage.puts_to_fail = 1
        await house.ask("verify")
        now = await ended(house)
        assert now.outcome is Outcome.INCOMPLETE
        assert "witness could not be written" in now.detail
        assert house.witness.verified_at is None


async def test_writes_meanwhile_go_on_and_nothing_differs() -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        await house.ask("verify")
        for value in range(1, 40):
            for offset in range(0, SIZE, REGION):
                house.write(value, offset=offset)
            await asyncio.sleep(0)
        assert (await ended(house)).outcome is Outcome.EQUAL
        await house.until(lambda: len(house.answered) == 39 * SIZE // REGION)
        assert {request.error for request in house.answered} == {0}


# ------------------------------------------------------------------ where it is allowed


@pytest.mark.parametrize("state", [State.SETUP, State.SYNCING, State.COMMITTED])
async def test_elsewhere_it_is_refused_with_the_state_and_what_is_allowed(state: State) -> None:
    async with standing_host(state) as house:
        refusal = await refused(house, "verify")
        assert refusal.code is Code.NOT_ALLOWED
        assert f"refused in state {state}" in refusal.message
        assert "source-selected and target-selected" in refusal.message
        assert refusal.allowed


async def test_it_is_refused_once_the_target_has_the_authority() -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        house.source.failing["write"] = errno.EIO
        await house.answer(house.write(1))
        await house.settled(State.TARGET_SELECTED)
        refusal = await refused(house, "verify")
        assert "misses writes" in refusal.message
        assert refusal.allowed == ("commit",)


# ------------------------------------------------------------------ a second one


async def test_second_one_is_told_of_the_first() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        first = await begun(house)
        second = await house.ask("verify", PlainRequest(operation_id="op-second"))
        assert first.verification is not None
        assert second.verification is not None
        assert (first.verification.id, second.verification.id) == ("op-first", "op-first")
        assert "under way already" in second.message
        house.source.let_go()
        assert (await ended(house)).outcome is Outcome.EQUAL
        again = await house.ask("verify", PlainRequest(operation_id="op-third"))
        assert again.verification is not None
        assert again.verification.id == "op-third"


async def test_command_that_is_repeated_begins_nothing_anew() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        request = PlainRequest(operation_id="op-1")
        await house.ask("verify", request)
        before = await ended(house)
        reply = await house.ask("verify", request)
        assert reply.verification == before


# ------------------------------------------------------------------ what holds it, what ends it


async def test_pause_holds_it_and_resume_lets_it_go_on() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        await house.ask("pause")
        house.source.log.clear()
        await house.ask("verify")
        await asyncio.sleep(0.01)
        assert "read" not in house.source.log
        assert view(house).outcome is None
        await house.ask("resume")
        assert (await ended(house)).outcome is Outcome.EQUAL


@pytest.mark.parametrize(("state", "command"), [
    (State.SOURCE_SELECTED, "abort"), (State.TARGET_SELECTED, "abort"), (State.TARGET_SELECTED, "commit"),
])  # fmt: skip
async def test_command_that_leaves_the_state_ends_it(state: State, command: str) -> None:
    async with standing_host(state) as house:
        await begun(house)
        await house.ask(command)
        assert (view(house).outcome, view(house).detail) == (Outcome.INCOMPLETE, f"it was ended by {command}")
        assert house.witness.verified_at is None
        house.source.let_go()  # what was under way is not believed any more, whatever it brings
        await house.settled(State.COMMITTED if command == "commit" else State.SETUP)
        assert not (await house.ledger()).faults


@pytest.mark.parametrize(
    ("state", "command"), [(State.SOURCE_SELECTED, "select-target"), (State.TARGET_SELECTED, "select-source")]
)
async def test_change_of_sides_leaves_it_going(state: State, command: str) -> None:
    async with standing_host(state) as house:
        await begun(house)
        await house.ask(command)
        assert view(house).outcome is None
        house.source.let_go()
        assert (await ended(house)).outcome is Outcome.EQUAL
        assert house.witness.verified_at is not None


async def test_target_fault_ends_it() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        await begun(house)
        house.target.failing["flush"] = errno.EIO
        with pytest.raises(Refusal):
            await house.ask("select-target")
        await house.settled(State.SETUP)
        assert view(house).detail == "it was ended by target-fault"
        house.source.let_go()


async def test_loss_of_the_source_ends_it() -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        await begun(house)
        house.source.failing["flush"] = errno.EIO
        assert await house.answer(house.flush()) == 0
        assert view(house).detail == "it was ended by source-fault"
        assert house.witness.authority is Side.TARGET
        house.source.let_go()


async def test_stop_of_the_host_ends_it_and_is_clean() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        await begun(house)
        assert await house.migration.stop()
        assert view(house).detail == "the host stopped"
        assert (await refused(house, "verify")).code is Code.SHUTTING_DOWN


async def _fail_target(house: StandingHost) -> None:
    house.target.failing["write"] = errno.EIO
    house.write(9)
    await house.until(lambda: house.migration.apparatus.volume.failover.has_dropped_target)


async def test_target_that_fails_at_the_very_end_leaves_nothing_verified() -> None:
    """Everything was equal; but before that had its turn, the target left the routing."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        await begun(house)

        async def end_then_fail() -> None:
            house.source.let_go()
            await house.until(lambda: view(house).remaining_bytes == 0)
            await _fail_target(house)

        house.before["select-target", Step.HOLD_WRITES] = end_then_fail
        await refused(house, "select-target")
        await house.settled(State.SETUP)
        assert (view(house).outcome, view(house).detail) == (
            Outcome.INCOMPLETE,
            "the target failed before its end",
        )
        assert house.witness.verified_at is None


# ------------------------------------------------------------------ what commit asks of it


async def test_commit_that_wants_a_verify_is_refused_without_one() -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        refusal = await refused(house, "commit", CommitRequest(verified=True))
        assert refusal.code is Code.NOT_VERIFIED
        assert house.witness.state is State.TARGET_SELECTED
        assert not (await house.ledger()).commit_intended


async def test_refused_commit_leaves_the_comparison_going() -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        await begun(house)
        await refused(house, "commit", CommitRequest(verified=True))
        assert view(house).outcome is None
        house.source.let_go()
        await ended(house)


@pytest.mark.parametrize("way", ["verify", "told otherwise", "source lost"])
async def test_commit_after_a_partial_resync_wants_a_verify(way: str) -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        await house.migration._keeper.amend(needs_verify=True)
        refusal = await refused(house, "commit")
        assert refusal.code is Code.NOT_VERIFIED
        assert "copied only what could differ" in refusal.message
        request = None
        if way == "verify":
            await house.ask("verify")
            await ended(house)
        elif way == "told otherwise":
            request = CommitRequest(verified=False)
        else:
            house.source.failing["write"] = errno.EIO
            await house.answer(house.write(1))
            await house.settled(State.TARGET_SELECTED)
        assert (await house.ask("commit", request)).state is State.COMMITTED


async def test_next_attempt_is_not_verified_by_the_last() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        await house.ask("verify")
        await ended(house)
        await house.ask("abort")
        assert house.witness.verified_at is None
        await house.until(lambda: not house.migration.apparatus.left_behind.outstanding)
        await house.ask("sync")
        await house.settled(State.SOURCE_SELECTED)
        assert house.witness.verified_at is None
