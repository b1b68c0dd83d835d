"""Devices and the witness fail while the decision point is at something else. No answer is lost, and none is wrong."""

import asyncio
import errno

import pytest

from services.write_cloning.faults import FAULTS_PER_SIDE_MAX, Faults
from services.write_cloning.volume.failures import Failure
from shared.messages.host import HostCommand
from shared.migration.devices import Side
from shared.migration.ledger import Ledger
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag, State
from shared.migration.table import Step, Trigger
from tests.support.standing_host import StandingHost, standing_host

_COMMANDS = [
    (State.SOURCE_SELECTED, "select-target"),
    (State.TARGET_SELECTED, "select-source"),
    (State.TARGET_SELECTED, "commit"),
]


@pytest.mark.parametrize(("state", "command"), _COMMANDS[:2])
async def test_target_fault_while_a_decision_is_written_keeps_the_target_out(
    state: State, command: str
) -> None:
    """The target came back into the routing with the decision, until its own fault was decided on."""
    async with standing_host(state) as house:
        target, writes = house.target, []

        async def fail_meanwhile() -> None:
            house.migration.apparatus.volume.failover.target_failed(
                Failure(side=Side.TARGET, operation="flush", cause="EIO", errno=errno.EIO)
            )
            writes.append(house.write(7))
            target.log.clear()

        async def arm() -> None:
            house.storage.before_put = fail_meanwhile

        house.before[command, Step.WRITE_WITNESS] = arm
        await house.ask(command)
        assert await house.answer(writes[0]) == 0
        assert "write" not in target.log
        assert house.states_when_answered == [State.SETUP]
        assert await house.read_byte() == 7
        ledger = await house.settled(State.SETUP)
        assert [fault.side for fault in ledger.all_faults] == [Side.TARGET]


async def test_fault_while_a_sync_is_written_is_of_the_attempt_that_begins() -> None:
    """The journal took none of the attempt before, once it recorded the new one: the host could never be started again."""
    async with standing_host(State.SETUP) as house:

        async def fail_meanwhile() -> None:
            # As a repair does that began in the attempt before, and learns only now that the source cannot be flushed.
            house.migration.source_failed(Failure.of_flush(Side.SOURCE, errno.EIO))

        async def arm() -> None:
            house.storage.before_put = fail_meanwhile

        house.before["sync", Step.WRITE_WITNESS] = arm
        await house.ask("sync")
        ledger = await house.settled(State.SYNCING)
        assert [(fault.side, fault.attempt) for fault in ledger.all_faults] == [(Side.SOURCE, 1)]
        assert ledger.attempt == 1


async def test_target_that_fails_while_a_commit_is_written_fails_the_application() -> None:
    """The commit may be past its point by then, so that the target has taken over."""
    async with standing_host(State.TARGET_SELECTED) as house:
        writes = []

        async def fail_meanwhile() -> None:
            house.target.failing["write"] = errno.EIO
            writes.append(house.write(7))
            await asyncio.sleep(0.01)
            assert not house.answered

        async def arm() -> None:
            house.storage.before_put = fail_meanwhile

        house.before["commit", Step.WRITE_WITNESS] = arm
        await house.ask("commit")
        assert await house.answer(writes[0]) == errno.EIO
        assert house.witness.state is State.COMMITTED
        assert not (await house.ledger()).all_faults


async def test_write_that_both_sides_fail_while_a_commit_is_written_is_an_error() -> None:
    """The source's error was forgiven, because «the target has it», although the target had failed it as well."""
    async with standing_host(State.TARGET_SELECTED) as house:
        writes = []

        async def fail_meanwhile() -> None:
            house.target.failing["write"] = house.source.failing["write"] = errno.EIO
            writes.append(house.write(7))
            await asyncio.sleep(0.01)

        async def arm() -> None:
            house.storage.before_put = fail_meanwhile

        house.before["commit", Step.WRITE_WITNESS] = arm
        await house.ask("commit")
        assert await house.answer(writes[0]) == errno.EIO


async def test_authority_does_not_move_to_a_target_that_is_being_copied_to_again() -> None:
    """What was asked of the target then may land at any time, and nothing would be left that keeps newer writes from it."""
    async with standing_host(State.TARGET_SELECTED) as house:

        async def fail() -> None:
            await house.fill_the_disk()
            house.target.hanging.add("write")

        house.source.failing["write"] = errno.EIO
        house.before["source-fault", Step.WRITE_WITNESS] = fail
        write = house.write(8)
        await house.until(lambda: house.target.hanging and house.target.pending)
        assert house.migration.apparatus.volume.failover.is_repairing
        with pytest.raises(Refusal) as refusal:
            await house.ask("commit")
        assert refusal.value.code is Code.BUSY
        assert house.witness.authority is Side.SOURCE
        house.target.let_go()
        assert await house.answer(write) == errno.EIO
        assert house.target.content == house.source.content


async def test_range_is_copied_again_once_though_the_source_fails_another_write_meanwhile() -> None:
    """A second copy of it landed on a write that both sides had done: the target was stale, without a fault, and committed."""
    async with standing_host(State.TARGET_SELECTED) as house:

        async def no_witness() -> None:
            await house.fill_the_disk()
            house.target.hanging.add("write")

        house.before["source-fault", Step.WRITE_WITNESS] = no_witness
        house.source.failing["write"] = errno.EIO
        first = house.write(1)
        await house.until(lambda: house.target.hanging and len(house.target.pending) == 1)
        second = house.write(2, offset=16384)
        failover = house.migration.apparatus.volume.failover
        await house.until(lambda: house.steps_of("source-fault").count(Step.WRITE_WITNESS) == 2)
        await house.until(lambda: not failover.withheld)
        assert len(house.target.pending) == 2, "a copy of the first range, and the second write itself"
        house.source.failing.clear()
        house.target.let_go()
        assert [await house.answer(each) for each in (first, second)] == [errno.EIO] * 2
        assert house.target.content == house.source.content


async def test_repairs_want_for_no_memory_that_the_failed_writes_keep() -> None:
    """They waited for each other until the target was taken for one that had failed."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        pool = house.migration.apparatus._volume_pool
        kept = pool.take(pool.budget_bytes)
        house.source.failing["write"] = errno.EIO
        assert await house.answer(house.write(1)) == errno.EIO
        assert house.target.content == house.source.content
        kept.release()


async def test_faults_of_one_run_have_names_of_their_own() -> None:
    """A migration that was handed over and given back counted anew: the journal took its first fault for one of before."""
    async with standing_host(State.SETUP) as house:
        names = set()
        for _ in range(2):
            faults = Faults(house.migration._keeper, house.migration.reporter, house.around)
            faults.note(Failure(side=Side.SOURCE, operation="read", cause="EIO"))
            names.add(faults.undecided[0].operation_id)
        assert len(names) == 2


async def test_faults_that_wait_for_the_witness_wait_together() -> None:
    """Each read that the source failed left a task of its own, for as long as the witness could not be written."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.source.failing["read"] = errno.EIO
        house.storage.puts_to_fail = 1 << 30
        assert await house.answer(house.read()) == 0
        tasks = len(asyncio.all_tasks())
        for _ in range(100):
            assert await house.answer(house.read()) == 0
        assert len(asyncio.all_tasks()) <= tasks + 1
        house.storage.puts_to_fail = 0
        await house.until(lambda: house.witness.fault_count(Side.SOURCE) > 1)


@pytest.mark.parametrize(("state", "command"), _COMMANDS)
async def test_target_that_cannot_be_flushed_or_written_before_the_decision_refuses_it(
    state: State, command: str
) -> None:
    async with standing_host(state) as house:

        async def fail() -> None:
            house.target.failing.update(write=errno.EIO, flush=errno.EIO)
            house.write(7, offset=8192)
            await asyncio.sleep(0.01)

        first = Step.FLUSH_SOURCE if command == "select-source" else Step.FLUSH_TARGET
        house.before[command, first] = fail
        with pytest.raises(Refusal) as refusal:
            await house.ask(command)
        assert refusal.value.code is Code.DEVICE_FAILED
        ledger = await house.settled(State.SETUP)
        assert (ledger.state, ledger.authority, ledger.flag) == (State.SETUP, Side.SOURCE, Flag.CLEAR)
        assert len(house.answered) == 1
        assert await house.read_byte(8192) == 7


@pytest.mark.parametrize(
    ("state", "command"),
    [
        *_COMMANDS,
        (State.SETUP, "sync"),
        (State.SETUP, "cleanup"),
        (State.SYNCING, "abort"),
        (State.SOURCE_SELECTED, "abort"),
        (State.TARGET_SELECTED, "abort"),
    ],
)
async def test_witness_that_cannot_be_written_refuses_the_command(state: State, command: str) -> None:
    async with standing_host(state) as house:

        async def fill_the_disk() -> None:
            house.storage.puts_to_fail = 1

        house.before[command, Step.WRITE_WITNESS] = fill_the_disk
        with pytest.raises(Refusal) as refusal:
            await house.ask(command)
        assert refusal.value.code is Code.INTERNAL
        assert house.witness.state is state
        assert house.witness.authority is Side.SOURCE
        assert await house.answer(house.write(5)) == 0
        assert await house.read_byte() == 5
        await house.ask(command)


@pytest.mark.parametrize(
    ("state", "command"), [(State.SOURCE_SELECTED, "select-target"), (State.TARGET_SELECTED, "commit")]
)
async def test_target_that_nobody_would_find_is_not_relied_on(state: State, command: str) -> None:
    """Deleted under its name: once it is closed, the only copy of what was written would be gone."""
    async with standing_host(state) as house:
        house.drawer.target_is_renamed = True
        with pytest.raises(Refusal) as refusal:
            await house.ask(command)
        assert refusal.value.code is Code.DEVICE_CHANGED
        assert house.witness.state is state
        house.drawer.target_is_renamed = False
        await house.ask(command)


async def test_source_fault_moves_the_authority_whatever_the_targets_name() -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        house.drawer.target_is_renamed = True
        house.source.failing["write"] = errno.EIO
        assert await house.answer(house.write(5)) == 0
        assert house.witness.authority is Side.TARGET


async def test_copied_volume_is_selected_when_the_witness_can_be_written_again() -> None:
    async with standing_host() as house:

        async def fill_the_disk() -> None:
            house.storage.puts_to_fail = 1

        house.before["copied", Step.WRITE_WITNESS] = fill_the_disk
        await house.ask("sync")
        await house.settled(State.SOURCE_SELECTED)


async def test_source_error_is_the_applications_when_the_witness_cannot_take_the_move() -> None:
    """Nobody answered what had been withheld for the move: every write hung from then on."""
    async with standing_host(State.TARGET_SELECTED) as house:
        house.source.failing["write"] = errno.EIO

        async def fill_the_disk() -> None:
            house.storage.puts_to_fail = 2

        house.before["source-fault", Step.WRITE_WITNESS] = fill_the_disk
        assert await house.answer(house.write(5)) == errno.EIO
        assert (house.witness.state, house.witness.authority) == (State.TARGET_SELECTED, Side.SOURCE)
        assert house.target.content[:4096] == house.source.content[:4096]
        assert await house.answer(house.write(6)) == 0, "the next fault is another chance to move"
        assert house.witness.authority is Side.TARGET


async def test_target_fault_waits_for_the_witness_and_so_does_the_answer() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        gate = asyncio.Event()

        async def hold_up() -> None:
            await gate.wait()

        async def arm() -> None:
            house.storage.before_put = hold_up

        house.before["target-fault", Step.WRITE_WITNESS] = arm
        house.target.failing["write"] = errno.EIO
        write = house.write(7)
        await asyncio.sleep(0.02)
        assert write not in house.answered
        assert await house.read_byte() == 7, "reads go on, from the source"
        gate.set()
        assert await house.answer(write) == 0


async def test_writes_that_wait_for_the_witness_are_warned_of() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:

        async def fill_the_disk() -> None:
            house.storage.puts_to_fail = 1

        house.before["target-fault", Step.WRITE_WITNESS] = fill_the_disk
        house.target.failing["write"] = errno.EIO
        write = house.write(7)
        await house.until(lambda: house.host.status().warnings)
        assert "witness" in house.host.status().warnings[0]
        assert write not in house.answered
        assert await house.answer(write) == 0
        assert house.host.status().warnings == ()


async def test_source_that_fails_while_the_target_cannot_be_flushed_leaves_the_error_to_the_application() -> (
    None
):
    async with standing_host(State.TARGET_SELECTED) as house:
        house.source.failing["write"] = errno.EIO
        house.target.failing["flush"] = errno.EIO
        assert await house.answer(house.write(5)) == errno.EIO
        ledger = await house.settled(State.SETUP)
        assert ledger.authority is Side.SOURCE
        assert {fault.side for fault in ledger.faults} == {Side.SOURCE, Side.TARGET}


async def test_source_flush_that_fails_moves_the_authority_before_it_is_answered() -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        house.source.failing["flush"] = errno.EIO
        assert await house.answer(house.flush()) == 0
        assert house.witness.authority is Side.TARGET


async def test_source_flush_that_fails_while_reads_come_from_the_source_is_the_applications_error() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.source.failing["flush"] = errno.EIO
        assert await house.answer(house.flush()) == errno.EIO
        assert (await house.settled(State.SOURCE_SELECTED)).fault_count(Side.SOURCE) == 1


async def test_target_that_hangs_is_dropped_and_not_used_again_before_it_lets_go() -> None:
    async with standing_host(State.SOURCE_SELECTED, io_timeout_s=0.2) as house:
        hung = house.target
        hung.hanging.add("write")
        assert await house.answer(house.write(7)) == 0
        ledger = await house.settled(State.SETUP)
        assert [fault.cause for fault in ledger.faults] == ["timeout"]
        (warning,) = house.migration.warnings
        assert warning.startswith("1 request of an earlier attempt is outstanding on target")
        with pytest.raises(Refusal) as refusal:
            await house.ask("sync")
        assert refusal.value.code is Code.OUTSTANDING_REQUESTS
        hung.let_go()
        await house.until(lambda: hung.is_closed)
        await house.ask("sync")
        await house.settled(State.SOURCE_SELECTED)


async def test_source_that_hangs_loses_the_authority_and_the_write_succeeds() -> None:
    async with standing_host(State.TARGET_SELECTED, io_timeout_s=0.2) as house:
        house.source.hanging.add("write")
        assert await house.answer(house.write(7)) == 0
        assert house.witness.authority is Side.TARGET
        assert await house.read_byte() == 7


async def test_write_that_hangs_on_the_source_is_waited_for_while_reads_come_from_it() -> None:
    async with standing_host(State.SOURCE_SELECTED, io_timeout_s=0.1) as house:
        house.source.hanging.add("write")
        write = house.write(7)
        with pytest.raises(Refusal) as refusal:
            await house.ask("select-target")
        assert refusal.value.code is Code.BUSY
        assert write not in house.answered
        house.source.let_go()
        assert await house.answer(write) == 0
        assert house.witness.state is State.SOURCE_SELECTED


async def test_target_fault_is_decided_while_a_command_waits_for_the_journal() -> None:
    """The command held the decision point while it read the journal, and the application waited for NATS."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        gate = asyncio.Event()
        read = house.around.journal.read

        async def read_late(migration: str) -> Ledger:
            await gate.wait()
            return await read(migration)

        house.around.journal.read = read_late  # type: ignore[method-assign]

        async def refused() -> None:
            with pytest.raises(Refusal):
                await house.ask("select-target")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(refused())
            await asyncio.sleep(0.02)
            house.target.failing["write"] = errno.EIO
            assert await house.answer(house.write(7)) == 0
            gate.set()


async def test_decision_is_carried_out_to_its_end_when_nobody_waits_for_it_any_more() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        asking: list[asyncio.Task[object]] = []

        async def stop_waiting() -> None:
            asking[0].cancel()
            await asyncio.sleep(0.01)

        house.before["select-target", Step.WRITE_WITNESS] = stop_waiting
        command = HostCommand(uuid=house.witness.uuid, operation_id="o1")
        asking.append(house.tasks.create_task(house.migration.command(Trigger.SELECT_TARGET, command)))
        await asyncio.wait(asking)
        await house.settled(State.TARGET_SELECTED)
        assert await house.answer(house.write(3)) == 0


async def test_source_that_keeps_failing_is_recorded_so_many_times_and_no_more() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.source.failing["read"] = errno.EIO
        for _ in range(FAULTS_PER_SIDE_MAX + 20):
            assert await house.answer(house.read()) == 0
        ledger = await house.settled(State.SOURCE_SELECTED)
        assert len(ledger.faults) == FAULTS_PER_SIDE_MAX
        house.target.failing["write"] = errno.EIO
        await house.answer(house.write())
        assert (await house.settled(State.SETUP)).fault_count(Side.TARGET) == 1
        assert house.witness.fault_count(Side.TARGET) == 1


async def test_durable_write_that_fails_in_its_flush_counts_as_a_failed_flush() -> None:
    """Its flush was that of all writes before it: what they have lost the copier would have laid over the target."""
    async with standing_host(State.SYNCING) as house:
        house.source.failing["durable write"] = house.source.flush_error = errno.EIO
        assert await house.answer(house.write(durable=True)) == errno.EIO
        ledger = await house.settled(State.SYNCING)
        assert [fault.operation for fault in ledger.faults] == ["write", "flush"]
        await house.ask("resume")
        await house.until(
            lambda: (
                house.migration.apparatus.copier is None
                or house.migration.apparatus.copier.synced_bytes == house.source.size_bytes
            )
        )
        assert (await house.settled(State.SYNCING)).facts.source_flush_faults == 1


async def test_durable_write_that_fails_by_itself_is_no_failed_flush() -> None:
    async with standing_host(State.SYNCING) as house:
        house.source.failing["durable write"] = errno.ENOSPC
        assert await house.answer(house.write(durable=True)) == errno.ENOSPC
        assert [fault.operation for fault in (await house.settled(State.SYNCING)).faults] == ["write"]


async def test_flush_that_fails_after_ever_so_many_writes_is_recorded_all_the_same() -> None:
    """It was one fault too many, and the copy of what the source may have forgotten passed for in sync."""
    async with standing_host(State.SYNCING) as house:
        house.source.failing["write"] = errno.EIO
        for _ in range(FAULTS_PER_SIDE_MAX + 1):
            assert await house.answer(house.write()) == errno.EIO
        house.source.failing["flush"] = errno.EIO
        assert await house.answer(house.flush()) == errno.EIO
        ledger = await house.settled(State.SYNCING)
        assert ledger.facts.source_flush_faults == 1


async def test_fault_that_a_decision_takes_along_is_reported() -> None:
    """A row without a step for it took the fault into the witness, and nobody told the journal."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.source.failing["read"] = errno.EIO

        async def fail() -> None:
            await house.answer(house.read())

        house.before["select-target", Step.WRITE_WITNESS] = fail
        await house.ask("select-target")
        ledger = await house.settled(State.TARGET_SELECTED)
        assert [fault.side for fault in ledger.faults] == [Side.SOURCE]


async def test_witness_that_cannot_take_what_is_stored_does_not_end_the_host() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.source.failing["read"] = errno.EIO
        await house.answer(house.read())
        await house.until(lambda: len(house.witness.faults) == 1)
        house.storage.puts_to_fail = 1
        ledger = await house.settled(State.SOURCE_SELECTED)
        assert len(ledger.faults) == 1


async def test_target_that_fails_at_the_stop_is_recorded_and_the_stop_is_clean() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.target.failing["flush"] = errno.EIO
        assert await house.migration.stop() is True
        ledger = await house.ledger()
        assert (ledger.state, ledger.flag) == (State.SETUP, Flag.CLEAR)
        assert [fault.side for fault in ledger.faults] == [Side.TARGET]


async def test_authority_that_cannot_be_flushed_leaves_the_flag_set() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.source.failing["flush"] = errno.EIO
        assert await house.migration.stop() is False
        assert (await house.ledger()).flag is Flag.SET


async def test_target_that_fails_while_it_is_copied_to_leads_back_to_setup() -> None:
    async with standing_host() as house:
        house.target.failing["write"] = errno.EIO
        await house.ask("sync")
        ledger = await _in_setup_again(house)
        assert [fault.side for fault in ledger.faults] == [Side.TARGET]
        assert await house.answer(house.write(3)) == 0


async def test_source_region_that_cannot_be_read_keeps_the_volume_from_being_in_sync() -> None:
    async with standing_host() as house:
        house.source.failing["read"] = errno.EIO
        await house.ask("sync")
        await house.until(lambda: len(house.witness.faults) == 4)
        assert house.witness.state is State.SYNCING
        assert (await house.ask("abort")).state is State.SETUP


async def _in_setup_again(house: StandingHost) -> Ledger:
    await house.until(lambda: house.witness.attempt == 1)
    return await house.settled(State.SETUP)
