"""An operator's word admits what nothing else would, on the host that it names, until something is cloned again."""

from dataclasses import replace

import pytest

from shared.bus.memory import MemoryBroker
from shared.messages.admission import GivenAway, UnreadableWitness
from shared.migration.devices import Side
from shared.migration.records import ADOPTED, StateRecord
from shared.migration.refusals import Code
from shared.migration.states import State
from shared.migration.table import Trigger
from shared.migration.verdicts import Label
from tests.support import stories
from tests.support.scripted_host import AT, ScriptedHost
from tests.support.services import Services
from tests.support.stories import Story, cleanly

STATES = {Side.SOURCE: State.SETUP, Side.TARGET: State.COMMITTED}


async def adopt(
    services: Services,
    authority: Side,
    *,
    host: str = "h1",
    run: int = 1,
    operation: str = "op-adopt",
    above: int = 0,
) -> None:
    """The word is numbered above the last decision, and above what else was known of."""
    ledger = await services.ledger()
    record = StateRecord(
        migration="vol1", uuid=str(ledger.uuid), attempt=ledger.attempt, host=host, run=run,
        decision=max(ledger.decision, above) + 1, operation_id=operation, recorded_at=AT, state=STATES[authority],
        authority=authority, trigger=ADOPTED,
    )  # fmt: skip
    await services.wire.journal.append(record, ledger.tail)


@pytest.mark.parametrize("authority", Side)
@pytest.mark.parametrize("story", [stories.target_selected, cleanly(stories.target_selected)])
@pytest.mark.parametrize("witness", ["none", "old", "foreign"])
async def test_the_word_stands_in_place_of_a_witness(
    services: Services, authority: Side, story: Story, witness: str
) -> None:
    host = services.host()
    await story(host)
    if witness == "none":
        host.witnesses.clear()
    elif witness == "foreign":
        host.witnesses["vol1"] = replace(host.witnesses["vol1"], uuid="other", host="h9", decision=99)
    await adopt(services, authority)
    (admission,) = (await services.admit(host)).admitted
    assert (admission.state, admission.authority) == (STATES[authority], authority)
    assert admission.flag_digest == "", "never cloning"
    assert admission.label in {Label.IDLE, Label.IDLE_FLAGGED, Label.DONE, Label.DONE_FLAGGED}


async def test_the_word_does_not_stand_in_place_of_a_witness_that_nobody_could_read(
    services: Services,
) -> None:
    """It had moved to the target while the journal was away. Failing, the one or the other is believed, and nobody told of it."""
    host = services.host()
    await stories.target_selected(host)
    witness = host.witnesses["vol1"]
    host.witnesses["vol1"] = replace(
        witness,
        state=State.COMMITTED,
        authority=Side.TARGET,
        decision=witness.decision + 2,
        operation_id="op-unheard",
    )
    await adopt(services, Side.SOURCE)
    before = await services.kinds()
    (closed,) = (await services.admit(host)).closed
    assert closed.code == Code.NOT_ADMITTED
    assert "has decided committed with authority target" in closed.message
    assert await services.kinds() == before
    for number in (2, 3):
        await adopt(services, Side.TARGET, operation=f"op-adopt-{number}")
    (admission,) = (await services.admit(host)).admitted
    assert (admission.state, admission.authority) == (State.COMMITTED, Side.TARGET)


async def test_the_word_ends_where_something_is_cloned_again(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    await adopt(services, Side.SOURCE)
    reply = await services.admit(host, run=2)
    host.run = 2
    host.adopt(reply.admitted[0])
    await host.sync()
    host.witnesses.clear()
    reply = await services.admit(host, run=3)
    assert [each.code for each in reply.closed] == [Code.NOT_ADMITTED]


@pytest.mark.parametrize("authority", Side)
@pytest.mark.parametrize("witness", ["none", "old"])
async def test_the_word_stands_where_nothing_but_openings_came_after_it(
    services: Services, authority: Side, witness: str
) -> None:
    """Each start leaves one, also one that dies before the host has written its witness. Failing, the word is needed again."""
    host = services.host()
    await cleanly(stories.target_selected)(host)  # so that nothing else of a start is on record
    if witness == "none":
        host.witnesses.clear()
    await adopt(services, authority)
    first, second = [(await services.admit(host, run=run)).admitted[0] for run in (2, 3)]
    assert (
        (first.state, first.authority) == (second.state, second.authority) == (STATES[authority], authority)
    )
    assert not first.is_witness_believed
    assert not second.is_witness_believed
    host.run = 3
    host.adopt(second)
    (admission,) = (await services.admit(host, run=4)).admitted
    assert admission.is_witness_believed


async def _taken_over(services: Services) -> tuple[ScriptedHost, ScriptedHost]:
    """From run 7 of one host to run 1 of another."""
    lost, other = services.host(run=7), services.host(name="h2")
    await cleanly(stories.source_selected)(lost)
    await adopt(services, Side.SOURCE, host="h2", run=1)
    return lost, other


async def test_the_runs_of_two_hosts_are_not_compared(services: Services) -> None:
    _lost, other = await _taken_over(services)
    reply = await services.admit(other, run=2)
    assert [each.migration for each in reply.admitted] == ["vol1"]
    other.run = 2
    other.adopt(reply.admitted[0])
    await other.sync()
    assert (await services.ledger()).run == 2


async def test_the_lost_host_that_comes_back_stays_closed(services: Services) -> None:
    lost, other = await _taken_over(services)
    await services.admit(other, run=2)
    before = await services.kinds()
    reply = await services.admit(lost, run=8)
    assert reply.admitted == ()
    assert "was given to host 'h2'" in reply.closed[0].message
    assert await services.kinds() == before


async def test_a_witness_that_cannot_be_read_admits_no_migration_of_another_host(services: Services) -> None:
    """Cause: without a witness the journal alone was judged, whoever asked. Failing: two hosts serve one volume."""
    lost, _other = await _taken_over(services)
    lost.witnesses.clear()
    before = await services.kinds()
    torn = UnreadableWitness(migration="vol1", reason="torn")
    reply = await services.admit(lost, run=8, unreadable=[torn])
    assert (reply.admitted, reply.removed) == ((), ())
    assert "was given to host 'h2'" in reply.closed[0].message
    assert await services.kinds() == before


async def test_what_the_lost_host_still_says_is_refused(services: Services) -> None:
    lost, _other = await _taken_over(services)
    lost.witnesses["vol1"] = replace(lost.witnesses["vol1"], decision=99)
    before = await services.kinds()
    reply = await services.admit(lost, run=8)
    assert (reply.admitted, len(reply.closed)) == ((), 1)
    assert await services.kinds() == before


@pytest.mark.parametrize("is_adopted", [True, False])
async def test_witness_of_an_earlier_migration_of_the_name_hides_not_the_one_that_was_taken_over(
    services: Services, *, is_adopted: bool
) -> None:
    """Cause: its host was told that all is over, and had no volume of that name, nor anything to say of it."""
    host, other = services.host(name="h2"), services.host()
    await stories.committed(host)
    old = host.witnesses["vol1"]
    await host.move("vol1", Trigger.CLEANUP)
    host.witnesses["vol1"] = old
    await other.set_up("vol1", uuid="u2", operation="op-again")
    if is_adopted:
        await adopt(services, Side.SOURCE, host="h2")
    reply = await services.admit(host)
    if is_adopted:
        assert [(each.uuid, each.state) for each in reply.admitted] == [("u2", State.SETUP)]
    else:
        assert (reply.admitted, reply.closed, reply.removed) == ((), (), ("vol1",)), "it is the other host's"


# ------------------------------------------------------------------ the journal goes back to before it was given to another host


async def _given_away_and_gone_back(
    services: Services, broker: MemoryBroker, story: Story, authority: Side
) -> tuple[ScriptedHost, GivenAway]:
    """The host that was lost was started meanwhile, and was told; the other one has written since."""
    lost, other = services.host(run=7), services.host(name="h2")
    await story(lost)
    before = list(broker.messages)
    await adopt(services, authority, host="h2", run=1)
    assert (await services.admit(other, run=2)).admitted
    (closed,) = (await services.admit(lost, run=8)).closed
    assert closed.given_away is not None
    assert closed.given_away.host == "h2"
    broker.messages[:] = before
    return lost, closed.given_away


@pytest.mark.parametrize(
    ("story", "authority", "has_witness"),
    [
        (cleanly(stories.source_selected), Side.SOURCE, True),
        (stories.target_selected, Side.SOURCE, True),
        (stories.committed, Side.TARGET, False),
    ],
)
async def test_the_host_that_was_told_opens_nothing_by_a_journal_from_before(
    services: Services, broker: MemoryBroker, story: Story, authority: Side, *, has_witness: bool
) -> None:
    """Cause: its witness is all that such a journal holds. Failing, it goes on in sync with a target that misses writes."""
    lost, given = await _given_away_and_gone_back(services, broker, story, authority)
    if not has_witness:
        lost.witnesses.clear()
    before = await services.kinds()
    reply = await services.admit(lost, run=9, given_away=[given])
    (closed,) = reply.closed
    assert "host 'h2' has it by an operator's word, and the journal is from before that" in closed.message
    assert reply.admitted == ()
    assert closed.given_away is None, "it is in mind already"
    assert await services.kinds() == before


async def test_a_journal_that_was_lost_is_not_repaired_by_the_host_that_was_told(
    services: Services, broker: MemoryBroker
) -> None:
    lost, given = await _given_away_and_gone_back(services, broker, stories.target_selected, Side.SOURCE)
    broker.messages.clear()
    assert (await services.admit(lost, run=9, given_away=[given])).admitted == ()
    assert await services.kinds() == []


async def test_only_a_word_that_knows_of_the_other_host_gives_it_back_by_a_journal_from_before(
    services: Services, broker: MemoryBroker
) -> None:
    story = cleanly(stories.source_selected)
    lost, given = await _given_away_and_gone_back(services, broker, story, Side.SOURCE)
    await adopt(services, Side.SOURCE, run=8)
    assert (await services.admit(lost, run=9, given_away=[given])).admitted == ()
    await adopt(services, Side.SOURCE, run=9, operation="op-adopt-2", above=given.decision)
    (admission,) = (await services.admit(lost, run=10, given_away=[given])).admitted
    assert (admission.state, admission.authority) == (State.SETUP, Side.SOURCE)


async def test_it_may_be_given_back_by_the_journal_that_tells_all(services: Services) -> None:
    lost, other = await _taken_over(services)
    assert (await services.admit(other, run=2)).admitted
    (closed,) = (await services.admit(lost, run=8)).closed
    assert closed.given_away is not None
    await adopt(services, Side.SOURCE, run=8, operation="op-back")
    (admission,) = (await services.admit(lost, run=9, given_away=[closed.given_away])).admitted
    assert admission.state is State.SETUP


async def test_the_host_that_has_it_is_told_that_the_journal_has_gone_back(
    services: Services, broker: MemoryBroker
) -> None:
    """Cause: it was told that it had been given to the host that it was taken from."""
    lost, other = services.host(run=7), services.host(name="h2")
    await cleanly(stories.source_selected)(lost)
    before = list(broker.messages)
    await adopt(services, Side.SOURCE, host="h2", run=1)
    (admission,) = (await services.admit(other, run=2)).admitted
    other.run = 2
    other.adopt(admission)
    broker.messages[:] = before
    (closed,) = (await services.admit(other, run=3)).closed
    assert "by the journal host 'h1' has it, and that has gone back" in closed.message
    assert "so would `cutover adopt vol1 --host h2`" in closed.message
    assert closed.given_away is None, "nobody knows"
