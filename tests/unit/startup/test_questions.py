"""How a host's question is taken: how much is read for it, and that one which is asked again is not judged behind the first."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from unittest.mock import AsyncMock

import pytest

from services.startup.service import Startup
from shared.bus.chain import ChainJournal
from shared.bus.memory import MemoryBroker, MemoryBus, MemoryStream
from shared.messages.admission import AdmissionReply, AdmissionRequest, admission_subject
from shared.migration.ledger import Ledger
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag
from shared.migration.table import Trigger
from tests.support import stories
from tests.support.scripted_host import ScriptedHost
from tests.support.services import Services, StoppedClock


def whole_question(host: ScriptedHost, *, asked_before: bool = False) -> AdmissionRequest:
    return AdmissionRequest(
        host=host.name, run=2, asked_before=asked_before, witnesses=tuple(host.witnesses.values())
    )


class SlowJournal(ChainJournal):
    """A journal that is read as a whole only when it may be."""

    def __init__(self, stream: MemoryStream) -> None:
        super().__init__(stream)
        self.is_read, self.may_be_read = asyncio.Event(), asyncio.Event()
        self.passes = 0

    async def read_living(self) -> Mapping[str, Ledger | Refusal]:
        self.passes += 1
        self.is_read.set()
        await self.may_be_read.wait()
        return await super().read_living()


@pytest.mark.parametrize("answered", [True, False])
async def test_question_that_is_asked_again_is_answered_by_the_judgement_under_way(
    services: Services, broker: MemoryBroker, *, answered: bool
) -> None:
    """Its own began behind that, so that a host which waits less long than a judgement takes never had an answer.

    Where there is none, it is judged by itself.
    """
    host = services.host()
    await stories.idle(host)
    bus = MemoryBus(broker, "slow")
    journal = SlowJournal(MemoryStream(bus))
    startup = Startup(journal=journal, requests=bus, discovery=bus, clock=StoppedClock())
    first = whole_question(host) if answered else replace(whole_question(host), run=0)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        asking = [
            tasks.create_task(_answer(startup, each))
            for each in (first, *[replace(first, asked_before=True)] * 3)
        ]
        await journal.is_read.wait()
        journal.may_be_read.set()
    replies = [each.result() for each in asking]
    assert replies == [replies[0]] * 4
    assert journal.passes == (1 if answered else 4)
    await startup.admit("h1", whole_question(host, asked_before=True))
    assert journal.passes == (2 if answered else 5), "no answer is kept for a question that comes later"


async def _answer(startup: Startup, request: AdmissionRequest) -> AdmissionReply | Code:
    try:
        return await startup.admit(request.host, request)
    except Refusal as refusal:
        return refusal.code


async def test_question_about_one_volume_is_judged_anew_however_often_it_is_asked(
    services: Services, broker: MemoryBroker
) -> None:
    """An operator may have given his word since the first was."""
    host = services.host()
    await stories.idle(host)
    bus = MemoryBus(broker, "slow")
    journal = SlowJournal(MemoryStream(bus))
    journal.may_be_read.set()
    startup = Startup(journal=journal, requests=bus, discovery=bus, clock=StoppedClock())
    host.opening = ("vol1",)
    async with _serving(services, host):
        await asyncio.gather(*(startup.admit("h1", _question_about_one(host)) for _ in range(3)))
    assert journal.passes == 3


@pytest.mark.parametrize("waits", [True, False])
async def test_one_volume_is_judged_only_while_its_host_waits_for_that(
    services: Services, *, waits: bool
) -> None:
    """Cause: a copy of the question came late, and cleared the flag that the volume was about to clone with by then."""
    host = services.host()
    await stories.flagged_but_never_entered(host)
    host.opening = ("vol1",) if waits else ()
    async with _serving(services, host):
        code = await _refused_with(services, _question_about_one(host))
    assert code is (None if waits else Code.BUSY)
    assert (await services.ledger()).flag is (Flag.CLEAR if waits else Flag.SET)


async def test_nobody_is_told_of_one_volume_whose_host_has_gone(services: Services) -> None:
    host = services.host()
    await stories.flagged_but_never_entered(host)
    assert await _refused_with(services, _question_about_one(host)) is Code.SERVICE_AWAY
    assert (await services.ledger()).flag is Flag.SET


async def _refused_with(services: Services, question: AdmissionRequest) -> Code | None:
    subject = admission_subject(question.host)
    try:
        await services.wire.requests.request(subject, question, AdmissionReply, timeout_s=10)
    except Refusal as refusal:
        return refusal.code
    return None


def _question_about_one(host: ScriptedHost) -> AdmissionRequest:
    return replace(whole_question(host, asked_before=True), only="vol1", life="this process")


def _serving(services: Services, host: ScriptedHost) -> AbstractAsyncContextManager[None]:
    description = host.description()
    metadata = {**description.metadata, "life": "this process"}
    return services.wire.endpoints.serve(replace(description, metadata=metadata), host.endpoints())


async def test_names_that_are_free_again_are_not_read_one_by_one(
    services: Services, broker: MemoryBroker
) -> None:
    """Beyond some thousand names that there ever were no host was admitted in the time that it waits."""
    host = services.host()
    for number in range(20):
        name = f"vm{number}"
        await host.set_up(name, f"u{number}", f"op{number}")
        await host.move(name, Trigger.CLEANUP)
    bus = MemoryBus(broker, "counted")
    stream = AsyncMock(wraps=MemoryStream(bus))
    startup = Startup(journal=ChainJournal(stream), requests=bus, discovery=bus, clock=StoppedClock())
    assert await startup.admit("h2", AdmissionRequest(host="h2", run=1)) == AdmissionReply()
    stream.read.assert_not_awaited()
    stream.read_each.assert_awaited_once()
