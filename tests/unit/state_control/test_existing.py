"""Names that the journal does not know, and a host does: lost, and not free. Nobody gives them away or denies them."""

import asyncio
from dataclasses import replace

import pytest

from shared.bus.memory import MemoryBroker
from shared.messages.control import (
    LIST_SUBJECT,
    CleanupRequest,
    CommandReply,
    CommitRequest,
    FaultsReply,
    ListReply,
    PlainRequest,
    SetupRequest,
    ThrottleRequest,
    VouchRequest,
    control_subject,
)
from shared.messages.host import ClosedView
from shared.messages.recovery import AdoptRequest, GiveUpRequest, RecoverRequest, RecoveryReply
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Trigger
from tests.support import stories
from tests.support.scripted_host import ScriptedHost
from tests.support.services import Services

COMMANDS = {
    "sync": PlainRequest(),
    "pause": PlainRequest(),
    "resume": PlainRequest(),
    "throttle": ThrottleRequest(bytes_per_s=None),
    "select-target": PlainRequest(),
    "select-source": PlainRequest(),
    "verify": PlainRequest(),
    "commit": CommitRequest(),
    "abort": PlainRequest(),
    "cleanup": CleanupRequest(),
    "vouch": VouchRequest(),
    "query": PlainRequest(),
    "faults": PlainRequest(),
    "recover": RecoverRequest(),
    "try-again": PlainRequest(),
    "adopt": AdoptRequest(authority=Side.SOURCE, accept=True),
    "give-up": GiveUpRequest(accept=True),
}
REPLIES = {"faults": FaultsReply, "recover": RecoveryReply}
CLOSED = ClosedView(name="vol1", uuid="u1", code=Code.NOT_ADMITTED, message="It was not admitted.")


def up(services: Services, host: ScriptedHost):  # type: ignore[no-untyped-def] # noqa: ANN201
    return services.wire.endpoints.serve(host.description(), host.endpoints())


async def ask(services: Services, command: str, request: object) -> object:
    return await services.wire.requests.request(
        control_subject(command, "vol1"), request, REPLIES.get(command, CommandReply), timeout_s=10
    )


async def set_up(services: Services, *, host: str | None = "h2", operation: str = "op-again") -> CommandReply:
    reply = await ask(
        services,
        "setup",
        SetupRequest(source="/c", target="/d", host=host, operation_id=operation),
    )
    assert isinstance(reply, CommandReply)
    return reply


@pytest.mark.parametrize("command", COMMANDS)
async def test_what_a_host_has_open_is_not_denied(
    services: Services, broker: MemoryBroker, command: str
) -> None:
    """Cause: all but three answered that there is no such migration, of one that was written to at that moment."""
    host = services.host()
    await stories.source_selected(host)
    async with up(services, host):
        broker.messages.clear()
        with pytest.raises(Refusal) as refused:
            await ask(services, command, COMMANDS[command])
    assert refused.value.code is Code.JOURNAL_UNSOUND
    assert "'vol1', which host 'h1' has open" in refused.value.message
    assert host.witnesses["vol1"].state is State.SOURCE_SELECTED
    assert broker.messages == []


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"recover", "try-again", "adopt", "give-up"}))
async def test_what_a_host_keeps_closed_is_not_denied(services: Services, command: str) -> None:
    host = services.host()
    host.closed = (CLOSED,)
    async with up(services, host):
        with pytest.raises(Refusal) as refused:
            await ask(services, command, COMMANDS[command])
    assert refused.value.code is Code.JOURNAL_UNSOUND
    assert "which host 'h1' keeps closed: It was not admitted." in refused.value.message


@pytest.mark.parametrize("command", COMMANDS)
async def test_what_nobody_has_is_unknown(services: Services, command: str) -> None:
    async with up(services, services.host()):
        with pytest.raises(Refusal) as refused:
            await ask(services, command, COMMANDS[command])
    assert refused.value.code is Code.UNKNOWN_MIGRATION


@pytest.mark.parametrize("command", COMMANDS)
async def test_what_a_host_has_yet_to_report_is_unknown_and_said_to_be_there(
    services: Services, command: str
) -> None:
    """Cause: of a volume that was served «there is no migration» was said, as long as NATS' disk was full."""
    host = services.host()
    host.reports = False
    await host.set_up()
    async with up(services, host):
        with pytest.raises(Refusal) as refused:
            await ask(services, command, COMMANDS[command])
    assert (refused.value.code, refused.value.message) == (
        Code.UNKNOWN_MIGRATION,
        "Host 'h1' has set up 'vol1', and the journal has yet to be told of it.",
    )


@pytest.mark.parametrize("chosen", ["h1", "h2"])
async def test_name_of_what_a_host_has_open_is_not_given_away(
    services: Services, broker: MemoryBroker, chosen: str
) -> None:
    """Cause: the journal that had lost it knew nothing of it, and the volume could not be opened by its host again."""
    host, other = services.host(), services.host(name="h2")
    await stories.syncing(host)
    broker.messages.clear()
    async with up(services, host), up(services, other):
        with pytest.raises(Refusal) as refused:
            await set_up(services, host=chosen)
    assert refused.value.code is Code.JOURNAL_UNSOUND
    assert "which host 'h1' has open" in refused.value.message
    assert "setup" not in host.asked + other.asked


@pytest.mark.parametrize("uuid", ["u1", None])
async def test_name_of_what_a_host_keeps_closed_is_not_given_away(
    services: Services, uuid: str | None
) -> None:
    host, other = services.host(), services.host(name="h2")
    host.closed = (replace(CLOSED, uuid=uuid),)
    async with up(services, host), up(services, other):
        with pytest.raises(Refusal) as refused:
            await set_up(services)
    assert refused.value.code is Code.JOURNAL_UNSOUND
    assert "setup" not in other.asked


async def test_name_is_free_of_what_was_cleaned_up_while_its_host_was_away(services: Services) -> None:
    host, other = services.host(), services.host(name="h2")
    await stories.idle(host)
    left = host.witnesses["vol1"]
    await host.move("vol1", Trigger.CLEANUP)
    host.closed = (CLOSED,)
    async with up(services, host), up(services, other):
        assert left.uuid == CLOSED.uuid
        assert (await set_up(services)).state is State.SETUP


async def test_name_that_a_host_has_yet_to_report_is_taken_for_others_alone(services: Services) -> None:
    """The host that has it may be asked again for what it has answered already."""
    host, other = services.host(), services.host(name="h2")
    host.reports = False
    await host.set_up(operation="op-first")
    async with up(services, host), up(services, other):
        with pytest.raises(Refusal) as refused:
            await set_up(services, operation="op-first")
        assert refused.value.code is Code.NAME_TAKEN
        assert "Host 'h1' has set up 'vol1'" in refused.value.message
        await set_up(services, host="h1", operation="op-first")
    assert ("setup" in host.asked, "setup" in other.asked) == (True, False)


async def test_host_that_hangs_holds_no_name(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is away: its volume stays closed when it is started again, and is told of."""
    monkeypatch.setattr("services.state_control.hosts.CHECK_TIMEOUT_S", 0.1)
    host, other = services.host(), services.host(name="h2")
    host.hanging = asyncio.Event()
    async with up(services, host), up(services, other):
        assert (await set_up(services)).state is State.SETUP
        host.hanging.set()


@pytest.mark.parametrize("command", ["recover", "try-again", "adopt", "give-up"])
async def test_what_was_cleaned_up_is_over_whatever_a_host_has_that_has_not_asked_since(
    services: Services, broker: MemoryBroker, command: str
) -> None:
    """Cause: the operator was told that the journal had lost it; adopted by its old witness, it was opened on the stale side."""
    host = services.host()
    await stories.committed(host)
    await host.move("vol1", Trigger.CLEANUP)
    host.closed = (CLOSED,)
    before = len(broker.messages)
    async with up(services, host):
        assert (await services.wire.requests.request(
            LIST_SUBJECT, PlainRequest(), ListReply, timeout_s=10
        )).unlisted == ()  # fmt: skip
        with pytest.raises(Refusal) as refused:
            await ask(services, command, COMMANDS[command])
    assert (refused.value.code, len(broker.messages)) == (Code.UNKNOWN_MIGRATION, before)
    assert refused.value.message == "'vol1' was cleaned up: there is nothing to recover."
