"""Cached writes of the source that are lost before they are on the disk. Linux then reads the old data, and says EIO once.

Cause: what the copier reads after the loss and before the flush that tells is old, and it is laid over cloned writes on the
target. Failing: the authority moves to that target, the application's flush succeeds, and the write is gone. Passing: no such
target is ever selected, and the flush fails.
"""

import errno

import pytest

from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Step
from tests.support.standing_host import StandingHost, standing_host


def _lose_writeback(house: StandingHost, before: bytes) -> None:
    """The source's cache has lost a write, and nobody was told yet."""
    house.source.content[: len(before)] = before
    house.source.failing["flush"] = errno.EIO


async def _abort_to_the_source(house: StandingHost) -> None:
    await house.ask("abort")
    ledger = await house.settled(State.SETUP)
    assert [(fault.side, fault.operation) for fault in ledger.all_faults] == [(Side.SOURCE, "flush")]
    assert await house.answer(house.flush()) == errno.EIO


@pytest.mark.parametrize("written_in", [State.SETUP, State.SYNCING])
async def test_copy_of_what_a_lost_write_left_behind_is_never_in_sync(written_in: State) -> None:
    async with standing_host(written_in) as house:
        old = bytes(house.source.content[:4096])
        assert await house.answer(house.write(7)) == 0
        _lose_writeback(house, old)
        await house.ask("resume" if written_in is State.SYNCING else "sync")
        await house.until(lambda: house.witness.fault_count(Side.SOURCE))
        assert house.witness.state is State.SYNCING
        with pytest.raises(Refusal) as refusal:
            await house.ask("select-target")
        assert refusal.value.code is Code.NOT_ALLOWED
        await _abort_to_the_source(house)


async def test_copy_is_in_sync_by_a_flush_of_the_source_that_began_when_all_was_read() -> None:
    async with standing_host(State.SYNCING) as house:
        house.source.log.clear()
        await house.ask("resume")
        await house.settled(State.SOURCE_SELECTED)
        assert house.source.log.count("flush") == 1
        assert house.source.log[-1] == "flush"
        assert house.steps_of("copied")[0] is Step.FLUSH_SOURCE


async def test_source_that_is_slow_to_flush_is_waited_for() -> None:
    """Slow is no fault; the volume is in sync as soon as the flush is done."""
    async with standing_host(State.SYNCING, io_timeout_s=0.05) as house:
        house.source.hanging.add("flush")
        await house.ask("resume")
        await house.until(lambda: Step.FLUSH_SOURCE in house.steps_of("copied"))
        assert await house.answer(house.write(7)) == 0
        house.source.let_go()
        ledger = await house.settled(State.SOURCE_SELECTED)
        assert not ledger.all_faults


async def test_target_that_fails_meanwhile_does_not_wait_for_the_source_to_be_flushed() -> None:
    async with standing_host(State.SYNCING) as house:
        house.source.hanging.add("flush")
        await house.ask("resume")
        await house.until(lambda: house.steps_of("copied"))
        house.target.failing["write"] = errno.EIO
        assert await house.answer(house.write(7)) == 0
        assert house.witness.state is State.SETUP


async def test_write_that_the_source_lost_after_the_copy_is_on_the_target() -> None:
    """Everything that was copied is proved by then, and cloned writes are on both sides: `select-target` leads out."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        old = bytes(house.source.content[:4096])
        assert await house.answer(house.write(7)) == 0
        _lose_writeback(house, old)
        assert await house.answer(house.flush()) == errno.EIO
        await house.ask("select-target")
        assert await house.answer(house.flush()) == 0
        assert house.witness.authority is Side.TARGET
        assert await house.read_byte() == 7


async def test_target_that_has_lost_what_was_written_since_its_flush_is_not_read_from() -> None:
    """Cause: the application's flush is of the source alone until reads come from the target, flushed before the write."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        old = bytes(house.target.content[:4096])

        async def write_and_lose() -> None:
            assert await house.answer(house.write(7)) == 0
            assert await house.answer(house.flush()) == 0
            house.target.content[:4096] = old
            house.target.failing["flush"] = errno.EIO

        house.before["select-target", Step.HOLD_WRITES] = write_and_lose
        with pytest.raises(Refusal) as refusal:
            await house.ask("select-target")
        assert refusal.value.code is Code.DEVICE_FAILED
        assert await house.read_byte() == 7
        await house.settled(State.SETUP)


@pytest.mark.parametrize("state", [State.SOURCE_SELECTED, State.TARGET_SELECTED])
async def test_range_that_is_copied_again_may_be_what_a_lost_write_left_behind(state: State) -> None:
    """The next write to the same place fails on the source; what is copied in its stead is older than both."""
    async with standing_host(state) as house:
        old = bytes(house.source.content[:4096])
        assert await house.answer(house.write(7)) == 0
        _lose_writeback(house, old)
        house.source.failing["write"] = errno.EIO
        if state is State.TARGET_SELECTED:
            house.before["source-fault", Step.WRITE_WITNESS] = house.fill_the_disk
        assert await house.answer(house.write(8)) == errno.EIO
        ledger = await house.settled(State.SETUP)
        assert {(fault.side, fault.operation) for fault in ledger.all_faults} == {
            (Side.SOURCE, "write"),
            (Side.SOURCE, "flush"),
            (Side.TARGET, "write"),
        }
        assert await house.answer(house.flush()) == errno.EIO


async def test_range_that_is_copied_again_is_proved_by_a_flush_before_it_is_laid_over_the_target() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.source.failing["write"] = errno.EIO
        log = house.source.log = house.target.log = []  # of both
        assert await house.answer(house.write(8)) == errno.EIO
        assert log[-3:] == ["read", "flush", "write"]
        assert house.target.content == house.source.content
        assert house.witness.state is State.SOURCE_SELECTED


@pytest.mark.parametrize("length", [512, 6144, 12288], ids=["one block", "two blocks", "more"])
@pytest.mark.parametrize("loser", list(Side))
@pytest.mark.parametrize("state", [State.SOURCE_SELECTED, State.TARGET_SELECTED])
async def test_blocks_are_filled_up_from_the_side_that_they_are_written_to(
    state: State, loser: Side, length: int
) -> None:
    """What one side has lost is not laid over the other, where the acknowledged write still is."""
    async with standing_host(state, target_block_bytes=4096) as house:
        device, other = house.source, house.target
        if loser is Side.TARGET:
            device, other = other, device
        old = bytes(device.content[:16384])
        assert await house.answer(house.write(7, length=16384)) == 0
        device.content[:16384] = old
        assert await house.answer(house.write(8, offset=512, length=length)) == 0
        end = 512 + length
        assert other.content[:16384] == bytes([7]) * 512 + bytes([8]) * length + bytes([7]) * (16384 - end)
        assert device.content[:512] == old[:512]
        assert device.content[512:end] == bytes([8]) * length
        assert device.content[end:16384] == old[end:]


async def test_target_that_has_lost_writes_takes_none_with_it() -> None:
    """The application's flush is answered: what it covers is on the source alone from then on."""
    async with standing_host(State.TARGET_SELECTED, target_block_bytes=4096) as house:
        old = bytes(house.target.content[:4096])
        assert await house.answer(house.write(7)) == 0
        house.target.content[:4096] = old
        house.target.failing["flush"] = errno.EIO
        assert await house.answer(house.write(8, offset=512, length=512)) == 0
        assert await house.answer(house.flush()) == 0
        await house.settled(State.SETUP)
        assert (await house.read_byte(), await house.read_byte(512)) == (7, 8)


async def test_reads_do_not_go_back_to_a_source_that_has_lost_writes() -> None:
    """The source's cache could not write back: it reads as it was, and the target alone has what the application wrote."""
    async with standing_host(State.TARGET_SELECTED) as house:
        old = bytes(house.source.content[:4096])
        assert await house.answer(house.write(7)) == 0
        _lose_writeback(house, old)
        with pytest.raises(Refusal) as refusal:
            await house.ask("select-source")
        assert refusal.value.code is Code.DEVICE_FAILED
        await house.until(lambda: house.witness.authority is Side.TARGET)
        assert await house.read_byte() == 7
        assert await house.answer(house.flush()) == 0
        await house.ask("commit")
        assert await house.read_byte() == 7


async def test_source_that_loses_a_write_after_it_was_flushed_for_the_way_back_is_not_read() -> None:
    """What was answered between the flush and the decision was in the source's cache alone, and reads went to it."""
    async with standing_host(State.TARGET_SELECTED) as house:
        old = bytes(house.source.content[:4096])

        async def lose_one() -> None:
            assert await house.answer(house.write(7)) == 0
            _lose_writeback(house, old)

        house.before["select-source", Step.HOLD_WRITES] = lose_one
        with pytest.raises(Refusal) as refusal:
            await house.ask("select-source")
        assert refusal.value.code is Code.DEVICE_FAILED
        await house.until(lambda: house.witness.authority is Side.TARGET)
        assert await house.read_byte() == 7
        assert await house.answer(house.write(8)) == 0, "nothing is held any more"


async def test_way_back_is_refused_once_the_source_has_failed() -> None:
    """A flush that failed before the decision was answered with the error, and reads went to the source that gave it."""
    async with standing_host(State.TARGET_SELECTED) as house:
        flushes = []

        async def fail() -> None:
            house.source.failing["flush"] = errno.EIO
            flushes.append(house.flush())
            await house.until(lambda: house.migration.apparatus.volume.failover.withheld)

        house.before["select-source", Step.WRITE_WITNESS] = fail
        with pytest.raises(Refusal) as refusal:
            await house.ask("select-source")
        assert refusal.value.code is Code.DEVICE_FAILED
        await house.until(lambda: house.witness.authority is Side.TARGET)
        assert await house.answer(flushes[0]) == 0
        assert house.witness.state is State.TARGET_SELECTED
