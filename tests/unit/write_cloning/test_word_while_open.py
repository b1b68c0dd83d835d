"""An operator's word about a closed volume is not recorded while its host opens it, and never stands in place of what it served.

Cause: while its devices were opened a volume was neither open nor closed. Failing, the word for one side is recorded, the host
serves the other, and at the next start a side that misses writes is offered as the one that holds all.
"""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from services.write_cloning.devices.interface import Device
from shared.bus.chain import ChainJournal
from shared.bus.memory import MemoryStream
from shared.messages.host import HostStatusReply, TryAgainRequest
from shared.messages.recovery import AdoptRequest, GiveUpRequest
from shared.migration.devices import DeviceIdentity, Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support.records import adopted_by
from tests.support.standing_host import HOST, NAME, StandingHost, standing_host
from tests.support.started_anew import started_anew


@asynccontextmanager
async def kept_closed() -> AsyncIterator[StandingHost]:
    """Its target's name led elsewhere when the host was started, and leads to the device again by now."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        assert await house.host.stop()
        await house.host.release()
        house.drawer.target_refused = Code.DEVICE_CHANGED
        async with started_anew(house, run=2):
            house.drawer.target_refused = None
            yield house


@asynccontextmanager
async def being_opened(house: StandingHost) -> AsyncIterator["asyncio.Task[HostStatusReply]"]:
    """It is judged anew, and waits for its target until the end."""
    reached, go_on, open_recorded = asyncio.Event(), asyncio.Event(), house.drawer.open_recorded

    async def slowly(identity: DeviceIdentity, *, is_target: bool) -> Device:
        if is_target and not reached.is_set():
            reached.set()
            await go_on.wait()
        return await open_recorded(identity, is_target=is_target)

    house.drawer.open_recorded = slowly  # type: ignore[method-assign]
    opening = house.tasks.create_task(house.host.try_again(NAME, TryAgainRequest()))
    await reached.wait()
    yield opening
    go_on.set()
    await opening


async def give_word(house: StandingHost, side: Side) -> None:
    """Record it behind the back of the host."""
    ledger = await house.ledger()
    word = adopted_by(HOST, ledger)
    if side is Side.TARGET:
        word = replace(word, state=State.COMMITTED, authority=side)
    await ChainJournal(MemoryStream(house.operator)).append(word, ledger.tail)


async def judged_anew(house: StandingHost) -> HostStatusReply:
    while True:
        try:
            return await house.host.try_again(NAME, TryAgainRequest())
        except Refusal as refusal:
            if refusal.code is not Code.BUSY:  # it is being let go of until then
                raise
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("adopt", AdoptRequest(authority=Side.TARGET, accept=True)),
        ("give-up", GiveUpRequest(accept=True)),
    ],
)
async def test_word_is_refused_while_the_volume_is_opened(command: str, word: object) -> None:
    async with kept_closed() as house:
        records = list(house.broker.messages)
        async with being_opened(house):
            (opening,) = house.host.status().opening
            assert opening == NAME
            with pytest.raises(Refusal, match=f"is opening '{NAME}'") as refusal:
                await house.ask(command, word)
            assert refusal.value.code is Code.BUSY
        assert house.host.status().opening == ()
        assert house.broker.messages == records
        assert house.witness.state is State.SOURCE_SELECTED


async def test_volume_is_closed_again_where_the_word_was_recorded_all_the_same() -> None:
    """The look at what the host does, and the record, are two steps."""
    async with kept_closed() as house:
        async with being_opened(house) as opening:
            await give_word(house, Side.TARGET)
        assert opening.result().migrations == ()
        (closed,) = opening.result().closed
        assert closed.message.startswith("an operator's word was recorded")
        await house.until(lambda: house.target.is_closed)


async def test_word_that_did_not_know_what_was_served_is_not_believed_and_the_next_one_is() -> None:
    """Writes may have been acknowledged in between, and be on the other side alone."""
    async with kept_closed() as house:
        await judged_anew(house)
        await give_word(house, Side.TARGET)
        await house.host.look_at_journal()
        (closed,) = (await judged_anew(house)).closed
        assert "has decided source-selected with authority source" in closed.message
        assert "once more, knowing that, would admit it" in closed.message
        reply = await house.ask("adopt", AdoptRequest(authority=Side.SOURCE, accept=True))
        assert (reply.state, reply.authority, reply.witness) == (State.SETUP, Side.SOURCE, True)
        await house.host.look_at_journal()
        assert house.witness.state is State.SETUP


async def test_volume_is_closed_where_its_host_decides_otherwise_under_the_number_of_the_word() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        await give_word(house, Side.TARGET)
        house.target.failing["write"] = errno.EIO
        assert await house.answer(house.write()) == 0
        await house.until(lambda: house.witness.state is State.SETUP)
        ledger = await house.ledger()
        assert (ledger.decision, ledger.state) == (house.witness.decision, State.COMMITTED)
        await house.host.look_at_journal()
        assert [each.name for each in house.host.closed] == [NAME]
