"""A host that cannot get on: what waits for the journal, and what a host that is not admitted waits for, is in every answer."""

from dataclasses import replace

import pytest

from shared.bus.interface import Endpoint, ServiceDescription
from shared.messages.control import CommandReply, PlainRequest, control_subject
from shared.messages.host import WaitingReply, host_waiting_subject
from shared.messages.recovery import AdoptRequest, GiveUpRequest, RecoverRequest, RecoveryReply
from shared.messages.status import JournalWait, MigrationStatus
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from tests.support import stories
from tests.support.services import Services

WAIT = JournalWait(
    what="decision 4 (setup), that the error flag is clear",
    why="No space left.",
    since="2026-01-31T12:00:00Z",
)
WHY = "Not everything could be judged yet: no space left on device."


async def _tell(_name: str, _request: PlainRequest) -> WaitingReply:
    return WaitingReply(host="h1", run=2, why=WHY)


WAITING = Endpoint(name="waiting", subject=host_waiting_subject("h1"), request=PlainRequest, handler=_tell)
SERVICE = ServiceDescription(name="waiting", description="A host that is not admitted yet")


async def query(services: Services) -> MigrationStatus:
    subject = control_subject("query", "vol1")
    return await services.wire.requests.request(subject, PlainRequest(), MigrationStatus, timeout_s=10)


async def refused(services: Services, what: str, request: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await services.wire.requests.request(
            control_subject(what, "vol1"), request, CommandReply, timeout_s=10
        )
    return caught.value


@pytest.mark.parametrize("wait", [WAIT, replace(WAIT, why="")])
async def test_sync_says_what_the_journal_lacks_and_what_keeps_it(
    services: Services, wait: JournalWait
) -> None:
    """It used to speak of the last decision, whatever it was that waited."""
    host = services.host()
    async with services.wire.endpoints.serve(host.description(), host.endpoints()):
        await stories.idle(host)
        host.reports, host.journal_wait = False, wait
        refusal = await refused(services, "sync", PlainRequest())
        assert refusal.code is Code.BUSY
        assert f"since {wait.since}: {wait.what}. What keeps it: " in refusal.message
        assert refusal.message.endswith(wait.why or "it has not answered so far.")
        assert (await query(services)).journal_wait == wait


async def test_a_host_that_is_not_admitted_yet_is_up_and_says_what_it_waits_for(services: Services) -> None:
    await stories.source_selected(services.host())
    async with services.wire.endpoints.serve(SERVICE, [WAITING]):
        status = await query(services)
        assert (status.host_answers, status.host_error) == (
            False,
            f"Host 'h1' is up, and waits for its admission: {WHY}",
        )
        assert (await refused(services, "commit", PlainRequest())).code is not Code.HOST_AWAY
        assert WHY in (await refused(services, "abort", PlainRequest())).message


async def test_nobody_gives_his_word_on_a_host_that_is_not_admitted_yet(services: Services) -> None:
    """It was taken for one that does not answer, and the ways offered would have thrown away what it knows."""
    await stories.source_selected(services.host())
    async with services.wire.endpoints.serve(SERVICE, [WAITING]):
        subject = control_subject("recover", "vol1")
        known = await services.wire.requests.request(subject, RecoverRequest(), RecoveryReply, timeout_s=10)
        assert (known.standing, known.host) == ("waiting", "h1")
        assert WHY in known.why
        assert {each.consent for each in known.choices} == {"refused"}
        adopt = AdoptRequest(authority=Side.SOURCE, accept=True)
        for what, request in (("adopt", adopt), ("give-up", GiveUpRequest(accept=True))):
            refusal = await refused(services, what, request)
            assert refusal.code is Code.NOT_ALLOWED
            assert "mend what that waits for" in refusal.message
        other = services.host(name="h2")
        async with services.wire.endpoints.serve(other.description(), other.endpoints()):
            refusal = await refused(services, "adopt", replace(adopt, host="h2"))
            assert "which is up: nobody takes it over" in refusal.message
