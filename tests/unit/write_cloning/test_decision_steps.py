"""The decision point follows the state table: each transition performs its row's steps in order, and ends where it says."""

import asyncio
import errno
from dataclasses import replace

import pytest

from services.write_cloning.keeper import Keeper
from services.write_cloning.reporter import origin_of
from services.write_cloning.views import view_of
from shared.messages.host import EnterRequest, HostCommand, HostSetupRequest
from shared.messages.recording import SetFlagRequest, StoredReply, record_subject
from shared.migration.devices import Side
from shared.migration.records import Kind, StateRecord
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag, State
from shared.migration.table import TRANSITIONS, Step, Transition, Trigger
from tests.support.standing_host import DISCONNECT, NAME, SIZE, StandingHost, standing_host

_COMMANDS = [
    (State.SETUP, Trigger.SYNC),
    (State.SOURCE_SELECTED, Trigger.SELECT_TARGET),
    (State.TARGET_SELECTED, Trigger.SELECT_SOURCE),
    (State.TARGET_SELECTED, Trigger.COMMIT),
    (State.SYNCING, Trigger.ABORT),
    (State.SOURCE_SELECTED, Trigger.ABORT),
    (State.TARGET_SELECTED, Trigger.ABORT),
]


def _row(before: State, trigger: Trigger) -> Transition:
    return next(row for row in TRANSITIONS if (row.before, row.trigger) == (before, trigger))


@pytest.mark.parametrize(("before", "trigger"), _COMMANDS)
async def test_command_performs_its_steps_in_order(before: State, trigger: Trigger) -> None:
    row = _row(before, trigger)
    async with standing_host(before) as house:
        decision = house.witness.decision
        reply = await house.ask(trigger.value)
        assert (reply.state, reply.journal) == (row.after, True)
        assert house.steps_of(trigger.value) == list(row.steps)
        assert reply.decision == decision + 1
        assert row.after is not None
        ledger = await house.settled(State.SOURCE_SELECTED if trigger is Trigger.SYNC else row.after)
        assert (ledger.state, ledger.authority) == (house.witness.state, row.authority)
        expected = Flag.CLEAR if Step.CLEAR_FLAG in row.steps else Flag.SET
        assert ledger.flag is expected


async def test_copied_volume_is_selected_and_equal() -> None:
    async with standing_host() as house:
        await house.ask("sync")
        await house.settled(State.SOURCE_SELECTED)
        assert house.steps_of("copied") == list(_row(State.SYNCING, Trigger.COPIED).steps)
        assert house.target.content == house.source.content
        assert len(house.target.content) == SIZE


@pytest.mark.parametrize("state", [State.SYNCING, State.SOURCE_SELECTED, State.TARGET_SELECTED])
async def test_target_fault_leads_back_to_setup(state: State) -> None:
    async with standing_host(state) as house:
        failed = house.target
        failed.failing["write"] = errno.EIO
        assert await house.answer(house.write(7)) == 0
        ledger = await house.settled(State.SETUP)
        assert house.steps_of("target-fault") == list(_row(state, Trigger.TARGET_FAULT).steps)
        assert (ledger.state, ledger.flag) == (State.SETUP, Flag.CLEAR)
        assert [(fault.side, fault.cause) for fault in ledger.faults] == [(Side.TARGET, "EIO")]
        assert await house.read_byte() == 7
        await house.until(lambda: failed.is_closed)


async def test_source_fault_while_reads_come_from_the_target_moves_the_authority() -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        house.source.failing["write"] = errno.EIO
        assert await house.answer(house.write(9)) == 0
        ledger = await house.settled(State.TARGET_SELECTED)
        assert (ledger.state, ledger.authority) == (State.TARGET_SELECTED, Side.TARGET)
        assert house.steps_of("source-fault") == list(_row(State.TARGET_SELECTED, Trigger.SOURCE_FAULT).steps)
        assert await house.read_byte() == 9
        assert (await house.ask("commit")).state is State.COMMITTED


@pytest.mark.parametrize("state", [State.SYNCING, State.SOURCE_SELECTED])
async def test_source_write_that_fails_is_an_error_with_both_sides_equal(state: State) -> None:
    async with standing_host(state) as house:
        house.source.failing["write"] = errno.EIO
        assert await house.answer(house.write(9)) == errno.EIO
        ledger = await house.settled(state)
        assert house.target.content[:4096] == house.source.content[:4096]
        assert [fault.side for fault in ledger.faults] == [Side.SOURCE]


async def test_source_write_that_fails_in_setup_is_the_applications_error() -> None:
    async with standing_host() as house:
        house.source.failing["write"] = errno.EIO
        assert await house.answer(house.write()) == errno.EIO
        assert not (await house.ledger()).all_faults


async def test_target_write_that_fails_after_the_commit_is_the_applications_error() -> None:
    async with standing_host(State.COMMITTED) as house:
        house.target.failing["write"] = errno.EIO
        assert await house.answer(house.write()) == errno.EIO
        assert house.witness.state is State.COMMITTED


@pytest.mark.parametrize("state", [State.SETUP, State.COMMITTED])
async def test_cleanup_leaves_nothing_but_the_memory_of_it(state: State) -> None:
    async with standing_host(state) as house:
        devices, uuid = (house.source, house.target), house.witness.uuid
        reply = await house.ask("cleanup", DISCONNECT)
        assert reply.state is None
        assert house.steps_of("cleanup") == list(_row(state, Trigger.CLEANUP).steps)
        assert not (await house.ledger()).exists
        assert list(house.storage.content) == ["openings"]
        assert await house.around.witnesses.openings.is_removed(uuid)
        await house.until(lambda: all(device.is_closed for device in devices))


async def test_refused_command_changes_nothing() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        witness = house.witness
        with pytest.raises(Refusal) as refusal:
            await house.ask("commit")
        assert refusal.value.code is Code.NOT_ALLOWED
        assert house.witness == witness
        assert not house.steps


@pytest.mark.parametrize("state", [State.SETUP, State.SYNCING, State.SOURCE_SELECTED, State.TARGET_SELECTED])
async def test_stop_is_clean_and_clears_the_flag(state: State) -> None:
    async with standing_host(state) as house:
        assert await house.migration.stop() is True
        ledger = await house.ledger()
        assert ledger.state is state
        assert ledger.flag is (Flag.NEVER if state is State.SETUP else Flag.CLEAR)


async def test_source_write_that_failed_while_syncing_does_not_keep_the_sides_from_being_in_sync() -> None:
    async with standing_host(State.SYNCING) as house:
        house.source.failing["write"] = errno.EIO
        assert await house.answer(house.write(9)) == errno.EIO
        await house.ask("resume")
        assert (await house.settled(State.SOURCE_SELECTED)).fault_count(Side.SOURCE) == 1
        assert house.target.content == house.source.content


async def test_source_flush_that_failed_while_syncing_does(caplog: pytest.LogCaptureFixture) -> None:
    """What was read from the source since may be older than what it was given."""
    async with standing_host(State.SYNCING) as house:
        house.source.failing["flush"] = errno.EIO
        assert await house.answer(house.flush()) == errno.EIO
        await house.ask("resume")
        await house.until(lambda: "copied, but not in sync: copied is refused" in caplog.text)
        assert house.witness.state is State.SYNCING
        assert (await house.ask("abort")).state is State.SETUP


async def test_all_that_was_decided_while_the_journal_was_away_is_recorded_in_its_order() -> None:
    async with standing_host(State.SYNCING) as house:
        house.bus.cut()
        copier = house.migration.apparatus.copier
        assert copier is not None
        copier.resume()
        await house.until(lambda: house.witness.state is State.SOURCE_SELECTED)
        house.target.failing["write"] = errno.EIO
        assert await house.answer(house.write(7)) == 0
        await house.until(lambda: house.witness.state is State.SETUP)
        house.bus.heal()
        ledger = await house.settled(State.SETUP)
        told = [entry.record for entry in ledger.entries]
        kinds = [each.trigger if isinstance(each, StateRecord) else each.kind for each in told]
        assert kinds[-4:] == ["copied", Kind.FAULT, "target-fault", Kind.FLAG_CLEAR]
        assert house.witness.tail_digest == ledger.tail.digest


async def test_record_that_is_found_in_the_journal_again_does_not_make_the_witness_rely_on_less() -> None:
    """As after an answer that was lost: what was stored since must still be in the journal at the next start."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        entries = (await house.ledger()).entries
        keeper = Keeper(house.witness, house.around.witnesses)
        for entry in (entries[-2], entries[-1], entries[-2]):
            await keeper.rely_on(entry.record.index, entry.digest)
        assert keeper.witness.tail_digest == entries[-1].digest


async def test_host_says_that_it_is_being_entered_from_the_look_at_the_flag_to_the_witness() -> None:
    """A second `sync` that set another flag meanwhile, and cleared it again, would leave a clear flag over cloned writes."""
    async with standing_host() as house:
        seen: list[bool] = []

        async def look() -> None:
            seen.append(view_of(house.migration, house.around).is_entering)

        house.before["sync", Step.WRITE_WITNESS] = look
        await house.ask("sync")
        await look()
        assert seen == [True, False]


async def _flagged(house: StandingHost) -> EnterRequest:
    """The flag is set for the first attempt, and the host has not been asked yet."""
    origin = replace(origin_of(house.witness), attempt=1, operation_id="sync-1:flag")
    request = SetFlagRequest(origin=origin, tail_digest=house.witness.tail_digest)
    flag = await house.operator.request(
        record_subject("flag-set", origin.host, NAME), request, StoredReply, timeout_s=5
    )
    return EnterRequest(uuid=house.witness.uuid, attempt=1, flag_digest=flag.digest, operation_id="sync-1")


async def test_flag_whose_clear_was_asked_for_is_not_entered_with() -> None:
    """The clear may be on its way. Reporter and startup see to it that nobody gets here; each alone would be enough."""
    async with standing_host() as house:
        asked = await _flagged(house)
        await house.migration._keeper.spend_flag(asked.flag_digest)
        with pytest.raises(Refusal, match="was to be cleared") as refusal:
            await house.migration.enter(asked)
        assert refusal.value.code is Code.STALE
        assert house.witness.state is State.SETUP


async def test_flag_that_the_host_has_refused_is_not_entered_with_when_the_same_request_comes_again() -> None:
    """Whoever was refused has it cleared. A host that took it all the same would clone writes under a flag that is clear."""
    async with standing_host() as house:
        asked = await _flagged(house)
        house.storage.puts_to_fail = 2
        with pytest.raises(Refusal, match="could not be written"):
            await house.migration.enter(asked)
        with pytest.raises(Refusal, match="was to be cleared") as refusal:
            await house.migration.enter(asked)
        assert refusal.value.code is Code.STALE
        assert house.witness.state is State.SETUP
        assert (await house.ask("sync")).state is State.SYNCING


async def test_name_is_not_given_again_before_what_belonged_to_it_is_removed() -> None:
    """Cause: the end of a clean-up removed the witness of the next migration of that name, whose volume was open by then."""
    again = HostSetupRequest(
        uuid="next", source="source", target="target", overwrite_target=True, operation_id="op-next"
    )
    async with standing_host() as house:
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            begun.set()
            await goes_on.wait()

        house.storage.before_remove = hold
        cleaning = house.tasks.create_task(house.ask("cleanup", DISCONNECT))
        await begun.wait()
        with pytest.raises(Refusal) as refused:
            await house.host.set_up(NAME, again)
        assert refused.value.code is Code.BUSY
        goes_on.set()
        assert (await cleaning).state is None
        await house.host.set_up(NAME, again)
        assert f"{NAME}.witness" in house.storage.content


async def test_set_up_that_is_asked_for_again_tells_of_the_migration_that_there_is() -> None:
    """State control draws a UUID each time: before the journal had the first one, the second was told to the operator."""
    async with standing_host(State.SETUP) as house:
        asked = [
            HostSetupRequest(uuid=uuid, source="a", target="b", overwrite_target=False, operation_id="mine")
            for uuid in ("first", "second")
        ]
        replies = [await house.host.set_up("vol9", each) for each in asked]
        assert [reply.uuid for reply in replies] == ["first", "first"]
        await house.host.clean_up("vol9", HostCommand(uuid="first", operation_id="gone"))
