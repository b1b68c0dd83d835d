"""The journal goes back while the host runs: it changes nothing any more, says so, and I/O goes on."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.write_cloning.journal_watch import watch_journal
from shared.messages.control import LIST_SUBJECT, ListReply, PlainRequest, control_subject
from shared.messages.status import MigrationStatus
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support.standing_host import NAME, PATIENCE_S, StandingHost, standing_host


@asynccontextmanager
async def gone_back() -> AsyncIterator[StandingHost]:
    """Back to the end of the first attempt, while the host is in the second with the copier paused."""
    async with standing_host(journal_wait_s=0.5) as house:
        await house.bring_to(State.SYNCING)
        await house.ask("abort")
        await house.until(lambda: house.migration.reporter.is_settled)
        kept = len(house.broker.messages)
        await house.ask("pause")
        await house.ask("sync")
        del house.broker.messages[kept:]
        assert (await house.ledger()).broken is None, "the chain itself looks whole"
        yield house


async def query(house: StandingHost) -> MigrationStatus:
    return await house.operator.request(
        control_subject("query", NAME), PlainRequest(), MigrationStatus, timeout_s=PATIENCE_S
    )


async def test_a_decision_of_the_host_itself_waits() -> None:
    async with gone_back() as house:
        await house.ask("resume")
        await house.until(lambda: house.migration.journal.trouble)
        assert house.witness.state is State.SYNCING
        assert await house.answer(house.write()) == 0


async def test_a_decision_is_not_recorded() -> None:
    """Cause: the record on top made the chain whole again, and its last flag record was the clear of an earlier attempt.

    Failing, a crash after it was taken for a clean stop, and a target that misses writes for one in sync.
    """
    async with gone_back() as house:
        relied_on, before = house.witness.tail_digest, (await house.ledger()).tail
        house.target.failing["write"] = errno.EIO
        assert await house.answer(house.write()) == 0
        await house.until(lambda: house.migration.reporter.trouble)
        assert "gone back" in str(house.migration.reporter.trouble)
        assert (await house.ledger()).tail == before
        assert house.witness.tail_digest == relied_on


@pytest.mark.parametrize("command", ["select-target", "commit", "cleanup", "sync"])
async def test_a_command_is_refused(command: str) -> None:
    async with gone_back() as house:
        with pytest.raises(Refusal) as caught:
            await house.ask(command)
        assert caught.value.code is Code.JOURNAL_UNSOUND
        assert "restarted, which has the journal repaired" in caught.value.message


async def test_the_way_out_is_open() -> None:
    async with gone_back() as house:
        reply = await house.ask("abort")
        assert (reply.state, reply.journal) == (State.SETUP, False)


async def test_a_query_says_so_and_the_watch_tells_the_host() -> None:
    async with gone_back() as house:
        assert any("gone back" in warning for warning in (await query(house)).warnings)
        assert house.migration.warnings == ()
        watching = house.tasks.create_task(watch_journal(house.host, interval_s=0))
        await house.until(lambda: house.host.status().warnings)
        watching.cancel()
        assert "gone back" in house.host.status().warnings[0]


async def test_a_stop_is_not_clean() -> None:
    async with gone_back() as house:
        before = (await house.ledger()).tail
        assert not await house.migration.stop()
        assert (await house.ledger()).tail == before


async def test_a_volume_that_the_journal_does_not_know_any_more_is_told_of() -> None:
    async with standing_host(State.SYNCING) as house:
        house.broker.messages.clear()
        with pytest.raises(Refusal, match="which host 'h1' has open") as caught:
            await query(house)
        assert caught.value.code is Code.JOURNAL_UNSOUND
        listed = await house.operator.request(LIST_SUBJECT, PlainRequest(), ListReply, timeout_s=PATIENCE_S)
        assert "which host 'h1' has open" in listed.warnings[0]
        assert await house.answer(house.write()) == 0


async def test_a_journal_that_comes_again_is_no_trouble_any_more() -> None:
    async with standing_host(State.SYNCING) as house:
        kept, house.broker.messages[:] = list(house.broker.messages), []
        await house.host.look_at_journal()
        assert house.migration.warnings
        house.broker.messages[:] = kept
        await house.host.look_at_journal()
        assert house.migration.warnings == ()
