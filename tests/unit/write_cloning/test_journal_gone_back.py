"""The journal goes back while the host runs: it changes nothing any more, says so, and I/O goes on."""

from shared.migration.states import State
from tests.support.standing_host import standing_host


async def test_a_decision_is_not_recorded_on_a_journal_that_went_back() -> None:
    """Cause: the record on top made the chain whole again, and its last flag record was the clear of an earlier attempt.

    Failing, a crash after it was taken for a clean stop, and a target that misses writes for one in sync.
    """
    async with standing_host() as house:
        await house.bring_to(State.SYNCING)
        await house.ask("abort")
        await house.until(lambda: house.migration.reporter.is_settled)
        kept = len(house.broker.messages)
        await house.ask("pause")
        await house.ask("sync")
        relied_on = house.witness.tail_digest
        del house.broker.messages[kept:]
        before = (await house.ledger()).tail

        await house.ask("resume")
        await house.until(lambda: house.migration.reporter.trouble is not None)
        assert (await house.ledger()).tail == before
        assert house.witness.tail_digest == relied_on
