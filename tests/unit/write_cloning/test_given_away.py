"""An operator gave a migration to another host while this one was frozen or cut off: it serves it no more, and records nothing.

Cause: the journal that says so looked sound, since it holds everything that the host relied on. Failing, two hosts write to the
same devices, and an acknowledged write of the one is overwritten by the other.
"""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from services.write_cloning.views import view_of
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.volume import Volume
from shared.bus.chain import ChainJournal
from shared.bus.interface import Endpoint, ServiceDescription
from shared.bus.memory import MemoryBus, MemoryStream
from shared.messages.control import PlainRequest
from shared.messages.host import HOST_SERVICE_NAME, HostStatusReply, host_subject
from shared.messages.recovery import AdoptRequest, ExamineReply, ExamineRequest, Finding, GiveUpRequest
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support.records import adopted_by, state_record, tombstone
from tests.support.standing_host import HOST, NAME, StandingHost, standing_host
from tests.support.started_anew import started_anew

OTHER = "h2"


async def give_away(house: StandingHost) -> None:
    ledger = await house.ledger()
    await ChainJournal(MemoryStream(house.operator)).append(adopted_by(OTHER, ledger), ledger.tail)


@asynccontextmanager
async def given_away(state: State) -> AsyncIterator[StandingHost]:
    """A host in a state, which the journal gives to another."""
    async with standing_host(state) as house:
        await give_away(house)
        yield house


def write_of_a_client(
    house: StandingHost, volume: Volume, *, offset: int = 0
) -> tuple[Request, list[Request]]:
    """One that has kept its connection; and the list that it stands in once it is answered."""
    answered: list[Request] = []
    request = Request(Kind.WRITE, offset, 4096, answered.append)
    request.buffer = house.pool.take(4096)
    volume.submit(request)
    return request, answered


def why_closed(house: StandingHost) -> str:
    (closed,) = house.host.closed
    assert (closed.name, closed.code) == (NAME, Code.NOT_ADMITTED)
    return closed.message


@pytest.mark.parametrize("state", State)
async def test_volume_is_closed_and_its_devices_are_let_go(state: State) -> None:
    async with given_away(state) as house:
        source, target, volume = house.source, house.target, house.exports.volumes[NAME]
        records, witness = list(house.broker.messages), house.storage.content[f"{NAME}.witness"]
        await house.host.look_at_journal()
        assert why_closed(house).startswith(f"{NAME} was given to host '{OTHER}'.")
        await house.until(lambda: source.is_closed or state is State.COMMITTED)
        await house.until(lambda: target.is_closed or state is State.SETUP)
        assert NAME not in house.exports.volumes
        write, answered = write_of_a_client(house, volume)
        await house.until(lambda: answered)
        assert write.error == errno.ESHUTDOWN
        assert house.broker.messages == records, "the journal is another host's"
        assert house.storage.content[f"{NAME}.witness"] == witness, "it may be the newest that there is"
        with pytest.raises(Refusal, match=f"closed: {NAME} was given to host '{OTHER}'"):
            house.host.find(NAME)


async def test_request_under_way_is_waited_for_and_no_other_is_taken() -> None:
    async with given_away(State.SOURCE_SELECTED) as house:
        source, volume = house.source, house.exports.volumes[NAME]
        source.hanging.add("write")
        under_way, answered = write_of_a_client(house, volume)
        await house.until(lambda: source.pending)
        await house.host.look_at_journal()
        await house.until(lambda: NAME not in house.exports.volumes)
        refused, refused_at_once = write_of_a_client(house, volume, offset=8192)
        await house.until(lambda: refused_at_once)
        assert refused.error == errno.ESHUTDOWN
        assert not answered
        assert not source.is_closed
        source.let_go()
        await house.until(lambda: source.is_closed)
        assert answered
        assert under_way.error == 0


async def test_copier_copies_no_further() -> None:
    async with given_away(State.SYNCING) as house:  # paused
        migration, target = house.migration, house.target
        await house.host.look_at_journal()
        await house.until(lambda: target.is_closed)
        assert migration.apparatus.copier is None


async def test_until_then_it_is_told_in_a_word() -> None:
    async with given_away(State.SOURCE_SELECTED) as house:
        migration = house.migration
        await migration.journal.again()
        assert view_of(migration, house.around).journal_condition is JournalCondition.GIVEN_AWAY
        assert migration.warnings == (f"{NAME} was given to host '{OTHER}'.",)


async def test_old_copy_that_names_the_host_of_before_closes_nothing() -> None:
    """It lacks what this host relied on: it has gone back, and what it says of hosts is as old as the rest."""
    async with standing_host(State.SYNCING) as house:
        kept = len(house.broker.messages)
        await house.ask("resume")
        await house.until(lambda: house.witness.state is State.SOURCE_SELECTED)
        await house.settled(State.SOURCE_SELECTED)
        del house.broker.messages[kept:]
        await give_away(house)
        await house.host.look_at_journal()
        assert house.migration.journal.condition is JournalCondition.GONE_BACK
        assert f"gone back to where host '{OTHER}' has it" in house.migration.journal.trouble
        assert "a restart of the host would keep the volume closed" in house.migration.journal.trouble
        assert await house.answer(house.write()) == 0


async def test_what_was_given_up_meanwhile_is_closed_too() -> None:
    """Its devices may be another migration's by now."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        source, ledger = house.source, await house.ledger()
        end = tombstone(uuid=str(ledger.uuid), decision=ledger.decision + 1, given_up=True)
        await ChainJournal(MemoryStream(house.operator)).append(end, ledger.tail)
        await house.host.look_at_journal()
        assert why_closed(house) == f"{NAME} was given up."
        await house.until(lambda: source.is_closed)


async def opened_by(house: StandingHost, run: int) -> None:
    """What startup records of a run of the same name that it admits."""
    ledger = await house.ledger()
    assert ledger.state is not None
    opening = state_record(
        f"startup:opened:{ledger.uuid}:{ledger.decision + 1}",
        ledger.state,
        authority=ledger.authority,
        uuid=str(ledger.uuid),
        attempt=ledger.attempt,
        run=run,
        decision=ledger.decision + 1,
        trigger="idle",
        life="of another process",
    )
    await ChainJournal(MemoryStream(house.operator)).append(opening, ledger.tail)


@pytest.mark.parametrize("state", State)
async def test_volume_that_a_later_run_of_the_same_name_has_is_closed(state: State) -> None:
    """Cause: only another name was looked for, and the state directory was copied to a second machine under the same one."""
    async with standing_host(state) as house:
        source, target = house.source, house.target
        await opened_by(house, run=2)
        records, witness = list(house.broker.messages), house.storage.content[f"{NAME}.witness"]
        await house.host.look_at_journal()
        assert why_closed(house).startswith(
            f"A later run of host '{HOST}', 2, has {NAME}; this is run 1. End this process"
        )
        await house.until(lambda: source.is_closed or state is State.COMMITTED)
        await house.until(lambda: target.is_closed or state is State.SETUP)
        assert NAME not in house.exports.volumes
        assert house.broker.messages == records, "the journal is the later run's"
        assert house.storage.content[f"{NAME}.witness"] == witness


async def test_until_then_nothing_is_decided_and_it_is_told_in_a_word() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        await opened_by(house, run=2)
        with pytest.raises(Refusal, match=f"A later run of host '{HOST}', 2, has {NAME}"):
            await house.ask("select-target")
        migration = house.migration
        await migration.journal.again()
        assert view_of(migration, house.around).journal_condition is JournalCondition.LATER_RUN


@pytest.mark.parametrize("run", [0, 1])
async def test_its_own_run_and_those_before_close_nothing(run: int) -> None:
    async with standing_host(State.SETUP) as house:
        await opened_by(house, run=run)
        await house.host.look_at_journal()
        assert house.migration.journal.condition is JournalCondition.SOUND
        assert await house.answer(house.write()) == 0


async def test_it_may_be_given_back() -> None:
    """The way back begins with a look at the devices, which a host does not grant of a volume that it has open."""
    async with given_away(State.SOURCE_SELECTED) as house:
        source = house.source
        await house.host.look_at_journal()
        await house.until(lambda: source.is_closed)
        reply = await house.ask("adopt", AdoptRequest(authority=Side.SOURCE, host=HOST, accept=True))
        assert reply.message.startswith("The word for the source is recorded.")
        assert (await house.ledger()).host == HOST


@asynccontextmanager
async def told_and_gone_back() -> AsyncIterator[StandingHost]:
    """It has read that another host has the migration; then the journal goes back to before that, and it is started anew."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        source, kept = house.source, list(house.broker.messages)
        await give_away(house)
        await house.host.look_at_journal()
        await house.until(lambda: source.is_closed)
        house.broker.messages[:] = kept
        async with started_anew(house, run=2):
            yield house


async def test_journal_from_before_that_opens_it_no_more() -> None:
    """Cause: such a journal holds all that this host relied on. Failing, both hosts serve it, and a stale target is committed."""
    async with told_and_gone_back() as house:
        assert f"host '{OTHER}' has it by an operator's word" in why_closed(house)
        assert house.exports.volumes == {}


async def test_no_side_is_safe_by_such_a_journal_and_a_word_that_knows_it_gives_it_back() -> None:
    async with told_and_gone_back() as house:
        word = AdoptRequest(authority=Side.SOURCE)
        with pytest.raises(Refusal, match="the records contradict each other") as refusal:
            await house.ask("adopt", word)
        assert refusal.value.code is Code.CONSENT_NEEDED
        reply = await house.ask("adopt", replace(word, accept=True))
        assert (reply.state, reply.authority, reply.witness) == (State.SETUP, Side.SOURCE, True)
        assert await house.around.witnesses.openings.given_away() == (), "what follows is its own"


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("adopt", AdoptRequest(authority=Side.SOURCE, accept=True)),
        ("give-up", GiveUpRequest(accept=True)),
    ],
)
async def test_it_is_neither_taken_back_from_a_host_that_is_up_nor_given_up(
    command: str, word: object
) -> None:
    async with told_and_gone_back() as house:
        other = ServiceDescription(name=HOST_SERVICE_NAME, description="host", metadata={"host": OTHER})
        async with MemoryBus(house.broker, OTHER).serve(other, ()):
            with pytest.raises(Refusal, match=f"was given to host '{OTHER}', which is up") as refusal:
                await house.ask(command, word)
        assert refusal.value.code is Code.NOT_ALLOWED


async def test_other_host_may_have_it_again_although_the_journal_names_this_one_which_is_up() -> None:
    """It has let go of it, and knows whose it is: nobody has to stop it for good."""

    async def status(_name: str, _request: PlainRequest) -> HostStatusReply:
        return HostStatusReply(host=OTHER, run=1)

    async def examine(_name: str, _request: ExamineRequest) -> ExamineReply:
        return ExamineReply(source=Finding(usable=True), target=Finding(usable=True))

    asked = (("status", PlainRequest, status), ("examine", ExamineRequest, examine))
    endpoints = [
        Endpoint(name=name, subject=host_subject(OTHER, name, "*"), request=request, handler=handler)
        for name, request, handler in asked
    ]
    other = ServiceDescription(name=HOST_SERVICE_NAME, description="host", metadata={"host": OTHER})
    async with told_and_gone_back() as house, MemoryBus(house.broker, OTHER).serve(other, endpoints):
        await house.ask("adopt", AdoptRequest(authority=Side.SOURCE, host=OTHER, accept=True))
        assert (await house.ledger()).host == OTHER


async def test_what_startup_tells_of_it_is_kept_in_mind_too() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        await house.host.stop()
        await house.host.release()
        await give_away(house)
        word = (await house.ledger()).entries[-1]
        async with started_anew(house, run=2):
            (given,) = await house.around.witnesses.openings.given_away()
            assert (given.host, given.digest) == (OTHER, word.digest)
            assert (given.migration, given.uuid) == (NAME, word.record.uuid)
