"""Startup dies at any of its steps, and the next one comes to the same verdict or to a more careful one.

Every request that startup makes to an owner of the journal is a step. It dies before the request, or after the request
was carried out and before the answer was heard; ten times over, if it must.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from services.startup.service import Startup
from shared.bus.interface import Requests, Unanswered
from shared.bus.memory import MemoryBroker
from shared.messages.admission import AdmissionReply, AdmissionRequest
from shared.migration.devices import Side
from shared.migration.refusals import Refusal
from shared.migration.states import CLONING_STATES, Flag, State
from shared.migration.table import Trigger
from shared.migration.verdicts import Label
from tests.support import stories
from tests.support.buses import MemoryWiring
from tests.support.scripted_host import ScriptedHost
from tests.support.services import Services, StoppedClock, running_services
from tests.support.stories import Story, cleanly

Reply = TypeVar("Reply")

STORIES = {
    "idle-flagged": stories.flagged_but_never_entered,
    "back-in-setup": stories.back_in_setup_with_the_flag_set,
    "done-flagged": stories.committed_with_the_flag_set,
    "resume": cleanly(stories.source_selected),
    "faulted": stories.target_failed_unheard,
    "unclean": stories.target_selected,
    "on-target": cleanly(stories.source_lost),
}
# From the first verdict, those that a later start may come to: the transition was made, or the flag is clear by then.
MORE_CAREFUL = {
    Label.UNCLEAN: {Label.UNCLEAN, Label.IDLE_FLAGGED, Label.IDLE},
    Label.FAULTED: {Label.FAULTED, Label.IDLE, Label.IDLE_FLAGGED},
    Label.IDLE_FLAGGED: {Label.IDLE_FLAGGED, Label.IDLE},
    Label.DONE_FLAGGED: {Label.DONE_FLAGGED, Label.DONE},
    Label.RESUME: {Label.RESUME},
    Label.ON_TARGET: {Label.ON_TARGET},
}


class DyingRequests:
    """Dies at the request of this number: before it is sent, or before its answer is heard."""

    def __init__(self, requests: Requests, dies_at: int, *, after: bool) -> None:
        self._requests = requests
        self._left = dies_at
        self._after = after

    async def request(self, subject: str, payload: object, reply: type[Reply], *, timeout_s: float) -> Reply:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Unanswered("died before asking")
        answer = await self._requests.request(subject, payload, reply, timeout_s=timeout_s)
        if self._left == 0:
            raise Unanswered("died before hearing")
        return answer

    async def publish(self, subject: str, payload: object) -> None:
        await self._requests.publish(subject, payload)


async def start(
    services: Services, host: ScriptedHost, run: int, dies_at: int = 0, *, after: bool = False
) -> AdmissionReply | None:
    """One start; None when it died."""
    wire = services.wire
    startup = Startup(
        journal=wire.journal,
        requests=DyingRequests(wire.requests, dies_at, after=after),
        discovery=wire.discovery,
        clock=StoppedClock(),
    )
    request = AdmissionRequest(host=host.name, run=run, witnesses=tuple(host.witnesses.values()))
    try:
        return await startup.admit(host.name, request)
    except Refusal as died:
        if not isinstance(died.__cause__, Unanswered):
            raise
        return None


async def judged_without_dying(story: Story) -> tuple[str, State | None, Side, Flag]:
    async with running_services(MemoryWiring()) as services:
        host = services.host()
        await story(host)
        reply = await start(services, host, 2)
        assert reply is not None
        ledger = await services.ledger()
        return reply.admitted[0].label, ledger.state, ledger.authority, ledger.flag


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("dies_at", [1, 2, 3, 4])
@pytest.mark.parametrize("name", STORIES)
async def test_dying_once(services: Services, name: str, dies_at: int, *, after: bool) -> None:
    label, *expected = await judged_without_dying(STORIES[name])
    host = services.host()
    await STORIES[name](host)
    died = await start(services, host, 2, dies_at, after=after) is None
    reply = await start(services, host, 3)
    assert reply is not None
    assert reply.closed == ()
    assert reply.admitted[0].label in MORE_CAREFUL[Label(label)]
    ledger = await services.ledger()
    assert [ledger.state, ledger.authority, ledger.flag] == expected
    assert ledger.broken is None
    assert died or dies_at > 1  # every story has at least one step to die at


@pytest.mark.parametrize("name", STORIES)
async def test_dying_ten_times(services: Services, name: str) -> None:
    label, *expected = await judged_without_dying(STORIES[name])
    host = services.host()
    await STORIES[name](host)
    for run in range(2, 12):
        await start(services, host, run, 1 + run % 3, after=run % 2 == 0)
    reply = await start(services, host, 12)
    assert reply is not None
    assert reply.admitted[0].label in MORE_CAREFUL[Label(label)]
    ledger = await services.ledger()
    assert [ledger.state, ledger.authority, ledger.flag] == expected
    assert sum(fault.cause == "unclean-shutdown" for fault in ledger.all_faults) <= 1
    kinds = await services.kinds()
    assert kinds.count("flag-set") <= 2


@pytest.mark.parametrize("name", STORIES)
async def test_a_start_after_a_start_leaves_nothing_to_do(services: Services, name: str) -> None:
    """But to record that it opens the volume: a state directory from before that is known by it, and an earlier run ends."""
    host = services.host()
    await STORIES[name](host)
    reply = await start(services, host, 2)
    assert reply is not None
    before = await services.kinds()
    again = await start(services, host, 3)
    assert again is not None
    assert await services.kinds() == [*before, "state"]
    first, second = reply.admitted[0], again.admitted[0]
    assert (first.state, first.flag_digest) == (second.state, second.flag_digest)
    assert first.decision + 1 == second.decision
    assert (second.state in CLONING_STATES) == bool(second.flag_digest)


class OvertakenRequests:
    """Before the request of this number is carried out, something arrives that the dead host had sent."""

    def __init__(self, requests: Requests, number: int, arrives: Callable[[], Awaitable[None]]) -> None:
        self._requests = requests
        self._left = number
        self._arrives = arrives

    async def request(self, subject: str, payload: object, reply: type[Reply], *, timeout_s: float) -> Reply:
        self._left -= 1
        if self._left == 0:
            await self._arrives()
        return await self._requests.request(subject, payload, reply, timeout_s=timeout_s)

    async def publish(self, subject: str, payload: object) -> None:
        await self._requests.publish(subject, payload)


async def admit_overtaken(
    services: Services, host: ScriptedHost, number: int, arrives: Callable[[], Awaitable[None]]
) -> AdmissionReply:
    wire = services.wire
    startup = Startup(
        journal=wire.journal,
        requests=OvertakenRequests(wire.requests, number, arrives),
        discovery=wire.discovery,
        clock=StoppedClock(),
    )
    request = AdmissionRequest(host=host.name, run=2, witnesses=tuple(host.witnesses.values()))
    return await startup.admit(host.name, request)


async def test_late_record_that_breaks_the_chain_while_it_is_judged_is_repaired(
    services: Services, broker: MemoryBroker
) -> None:
    """Cause: a journal that had gone back was whole again, and what had been sent on the old one fitted by its number alone.

    The volume stayed closed, although its witness was there and nothing but another question was needed.
    """
    host = services.host()
    await stories.target_selected(host)
    *kept, _lost, sent = broker.messages
    broker.messages[:] = kept

    async def land() -> None:
        last = broker.messages[-1].stored.sequence
        broker.messages.append(replace(sent, stored=replace(sent.stored, sequence=last + 1)))
        broker.next_sequence = last + 2

    reply = await admit_overtaken(services, host, 2, land)  # the first one has just repaired it
    assert reply.closed == ()
    (admission,) = reply.admitted
    assert (admission.state, admission.label) == (State.SETUP, Label.UNCLEAN)
    assert (await services.ledger()).broken is None
    assert (await services.kinds()).count("repair") == 2


async def test_what_a_dead_host_has_sent_and_arrives_meanwhile_is_judged_too(services: Services) -> None:
    """The owners refuse what was asked on an older journal; nothing is wrong with it, and nobody has to be asked."""
    host = services.host()
    await stories.source_selected(host)
    host.reports = False
    await host.move("vol1", Trigger.SELECT_TARGET)
    await host.fail()

    async def report() -> None:
        host.reports = True
        await host.report("vol1")

    reply = await admit_overtaken(services, host, 1, report)
    assert reply.closed == ()
    (admission,) = reply.admitted
    assert admission.state is State.SETUP
    assert admission.target_faults == 1


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_what_a_host_decides_that_another_startup_has_admitted_stands(
    services: Services, number: int
) -> None:
    """Cause: a startup that lagged went on with its remedies on whatever the journal held by then.

    Failing, its way back to setup is recorded over the decisions of a host that clones: what that decides afterwards is
    refused, and the next start finds a source that misses writes taken for the right side.
    """
    host = services.host()
    await stories.target_selected(host)

    async def be_admitted_and_go_on() -> None:
        reply = await services.admit(host, run=2, asked_before=True)
        host.run = 2
        host.adopt(reply.admitted[0])
        await host.sync()
        await host.move("vol1", Trigger.COPIED)
        await host.move("vol1", Trigger.SELECT_TARGET)

    assert (await admit_overtaken(services, host, number, be_admitted_and_go_on)).admitted == ()
    decided = host.witnesses["vol1"]
    ledger = await services.ledger()
    assert (ledger.state, ledger.decision) == (State.TARGET_SELECTED, decided.decision)
    await host.fail(side=Side.SOURCE)
    await host.move("vol1", Trigger.SOURCE_FAULT)
    assert (await services.ledger()).authority is Side.TARGET
