"""Commands: proposed here, decided by the host, recorded when it reports. A refusal changes nothing and says what is allowed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.state_control import hosts
from shared.bus.memory import MemoryBroker
from shared.messages.control import (
    CleanupRequest,
    CommandReply,
    PlainRequest,
    SetupRequest,
    ThrottleRequest,
    control_subject,
)
from shared.messages.status import MigrationStatus
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag, State
from shared.migration.table import TRANSITIONS, Trigger
from tests.support import stories
from tests.support.scripted_host import ScriptedHost
from tests.support.services import Services
from tests.support.stories import Story, cleanly

SETUP = SetupRequest(source="/a", target="/b")
STORIES: dict[State, Story] = {
    State.SETUP: stories.idle,
    State.SYNCING: stories.syncing,
    State.SOURCE_SELECTED: stories.source_selected,
    State.TARGET_SELECTED: stories.target_selected,
    State.COMMITTED: stories.committed,
}
COMMANDS = ("sync", "select-target", "select-source", "commit", "abort", "cleanup")


@pytest.fixture
async def host(services: Services) -> AsyncIterator[ScriptedHost]:
    """One host that is up."""
    host = services.host()
    async with services.wire.endpoints.serve(host.description(), host.endpoints()):
        yield host


async def command(
    services: Services, what: str, request: object | None = None, name: str = "vol1"
) -> CommandReply:
    request = PlainRequest() if request is None else request
    return await services.wire.requests.request(
        control_subject(what, name), request, CommandReply, timeout_s=10
    )


async def refused(
    services: Services, what: str, request: object | None = None, name: str = "vol1"
) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await command(services, what, request, name)
    return caught.value


# ------------------------------------------------------------------ the whole life


async def test_a_whole_life(services: Services, host: ScriptedHost) -> None:
    reply = await command(services, "setup", SETUP)
    assert (reply.state, reply.witness, reply.journal) == (State.SETUP, True, True)
    assert (await command(services, "sync")).state is State.SYNCING
    await host.move("vol1", Trigger.COPIED)
    assert (await command(services, "select-target")).state is State.TARGET_SELECTED
    assert (await command(services, "select-source")).state is State.SOURCE_SELECTED
    assert (await command(services, "select-target")).state is State.TARGET_SELECTED
    reply = await command(services, "commit")
    assert (reply.state, reply.authority) == (State.COMMITTED, Side.TARGET)
    assert (await command(services, "cleanup", CleanupRequest())).state is None
    assert await services.kinds() == [
        "state", "flag-set", "state", "state", "state", "state", "state", "intent", "state", "flag-clear", "tombstone",
    ]  # fmt: skip
    reply = await command(services, "setup", SETUP)
    assert reply.uuid != (await services.ledger()).entries[0].record.uuid


async def test_the_flag_is_set_before_the_host_enters(services: Services, host: ScriptedHost) -> None:
    await stories.idle(host)
    await command(services, "sync")
    assert await services.kinds() == ["state", "flag-set", "state"]
    ledger = await services.ledger()
    assert host.witnesses["vol1"].flag_digest == ledger.entries[1].digest
    assert ledger.entries[1].record.attempt == ledger.attempt == 1


async def test_the_intent_to_commit_is_recorded_first(services: Services, host: ScriptedHost) -> None:
    await stories.target_selected(host)
    host.refusing = Refusal(Code.DEVICE_FAILED, "The target cannot be flushed.")
    assert (await refused(services, "commit")).code is Code.DEVICE_FAILED
    assert (await services.kinds())[-1] == "intent"
    ledger = await services.ledger()
    assert (ledger.state, ledger.commit_intended) == (State.TARGET_SELECTED, True)


async def test_abort_goes_back_to_setup_and_clears_the_flag(services: Services, host: ScriptedHost) -> None:
    await stories.source_selected(host)
    assert (await command(services, "abort")).state is State.SETUP
    assert (await services.ledger()).flag is Flag.CLEAR
    assert (await command(services, "sync")).attempt == 2


# ------------------------------------------------------------------ the table


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("state", STORIES)
async def test_what_the_table_does_not_list_is_refused_and_changes_nothing(
    services: Services, host: ScriptedHost, state: State, what: str
) -> None:
    await STORIES[state](host)
    request = CleanupRequest() if what == "cleanup" else None
    if any(row.before is state and row.trigger == what for row in TRANSITIONS):
        assert (await command(services, what, request)).journal
        return
    before, witness = await services.kinds(), host.witnesses["vol1"]
    refusal = await refused(services, what, request)
    assert refusal.code is Code.NOT_ALLOWED
    assert f"in state {state}" in refusal.message
    assert set(refusal.allowed) == {row.trigger for row in TRANSITIONS if row.before is state} & set(COMMANDS)
    assert await services.kinds() == before
    assert host.witnesses["vol1"] is witness
    assert "commit" not in host.asked


@pytest.mark.parametrize("what", [*COMMANDS, "pause", "resume", "throttle"])
async def test_an_unknown_migration_is_refused(services: Services, host: ScriptedHost, what: str) -> None:
    kinds: dict[str, Any] = {"cleanup": CleanupRequest(), "throttle": ThrottleRequest()}
    refusal = await refused(services, what, kinds.get(what))
    assert refusal.code is Code.UNKNOWN_MIGRATION
    assert "'vol1'" in refusal.message


async def test_a_faulted_target_is_never_committed_to(services: Services, host: ScriptedHost) -> None:
    await stories.target_selected(host)
    await host.fail()
    refusal = await refused(services, "commit")
    assert refusal.code is Code.NOT_ALLOWED
    assert "target fault" in refusal.message
    assert "commit" not in refusal.allowed
    assert "intent" not in await services.kinds()


async def test_a_damaged_journal_allows_nothing_but_the_way_out(
    services: Services, host: ScriptedHost, broker: MemoryBroker
) -> None:
    await stories.source_selected(host)
    del broker.messages[2]
    assert (await refused(services, "select-target")).code is Code.JOURNAL_UNSOUND
    host.reports = False  # a real host cannot have it recorded either
    reply = await command(services, "abort")
    assert (reply.state, reply.journal) == (State.SETUP, False)


# ------------------------------------------------------------------ setup


async def test_a_name_that_is_taken_is_refused(services: Services, host: ScriptedHost) -> None:
    await stories.idle(host)
    refusal = await refused(services, "setup", SETUP)
    assert refusal.code is Code.NAME_TAKEN
    assert "setup" not in host.asked


async def test_a_host_that_is_named_is_taken(services: Services, host: ScriptedHost) -> None:
    other = services.host(name="h2")
    async with services.wire.endpoints.serve(other.description(), other.endpoints()):
        await command(services, "setup", SetupRequest(source="/a", target="/b", host="h2"))
    assert "setup" in other.asked
    assert "setup" not in host.asked
    assert (await services.ledger()).host == "h2"


async def test_which_host_is_meant_must_be_clear(services: Services, host: ScriptedHost) -> None:
    other = services.host(name="h2")
    async with services.wire.endpoints.serve(other.description(), other.endpoints()):
        refusal = await refused(services, "setup", SETUP)
    assert refusal.code is Code.HOST_UNKNOWN
    assert "h1, h2" in refusal.message


async def test_a_host_that_is_not_there_is_refused_by_naming_those_that_are(
    services: Services, host: ScriptedHost
) -> None:
    refusal = await refused(services, "setup", SetupRequest(source="/a", target="/b", host="h9"))
    assert refusal.code is Code.HOST_UNKNOWN
    assert "'h9'" in refusal.message
    assert "h1" in refusal.message


async def test_without_any_host_nothing_is_set_up(services: Services) -> None:
    refusal = await refused(services, "setup", SETUP)
    assert refusal.code is Code.HOST_UNKNOWN
    assert "no host is up" in refusal.message
    assert await services.kinds() == []


@pytest.mark.parametrize("name", ["Vol1", "-vol", "v_1", "v" * 64])
async def test_a_bad_name_is_refused(services: Services, host: ScriptedHost, name: str) -> None:
    assert (await refused(services, "setup", SETUP, name)).code is Code.BAD_NAME


async def test_a_bad_name_of_a_host_is_refused(services: Services, host: ScriptedHost) -> None:
    request = SetupRequest(source="/a", target="/b", host="not.a.name")
    assert (await refused(services, "setup", request)).code is Code.BAD_NAME


# ------------------------------------------------------------------ a refused sync


async def test_the_flag_goes_again_when_the_host_refuses(services: Services, host: ScriptedHost) -> None:
    await stories.idle(host)
    host.refusing = Refusal(Code.TARGET_IN_USE, "The target carries ext4.")
    refusal = await refused(services, "sync")
    assert (refusal.code, refusal.message) == (Code.TARGET_IN_USE, "The target carries ext4.")
    assert await services.kinds() == ["state", "flag-set", "flag-clear"]
    host.refusing = None
    assert (await command(services, "sync")).attempt == 1


async def test_the_flag_stays_when_nobody_knows_what_the_host_did(
    services: Services, host: ScriptedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "COMMAND_TIMEOUT_S", 0.1)
    await stories.idle(host)
    blocked = asyncio.Event()

    async def enter(*_arguments: object) -> object:
        await blocked.wait()
        raise AssertionError

    host.enter = enter  # type: ignore[assignment, method-assign]
    refusal = await refused(services, "sync")
    assert refusal.code is Code.HOST_AWAY
    assert "not known" in refusal.message
    assert await services.kinds() == ["state", "flag-set"]
    blocked.set()


async def test_the_flag_of_a_sync_that_lost_stays_with_the_one_that_won(
    services: Services, host: ScriptedHost
) -> None:
    """Another replica's sync has entered meanwhile, and its decision is not recorded yet: its flag must not go."""
    await stories.idle(host)
    enter = host.enter

    async def won_by_another(name: str, flag_digest: str, operation: str) -> None:
        host.reports = False
        await enter(name, flag_digest, "the other's")
        raise Refusal(Code.NOT_ALLOWED, "In syncing already.")

    host.enter = won_by_another  # type: ignore[assignment, method-assign]
    refusal = await refused(services, "sync")
    assert refusal.code is Code.NOT_ALLOWED
    assert "stays set" in refusal.message
    assert (await services.ledger()).flag is Flag.SET


@pytest.mark.parametrize(("count", "words"), [(3, "3 requests of"), (1, "1 request of")])
async def test_requests_that_may_still_land_on_the_target_forbid_a_sync(
    services: Services, host: ScriptedHost, count: int, words: str
) -> None:
    await stories.idle(host)
    host.outstanding = count
    refusal = await refused(services, "sync")
    assert refusal.code is Code.OUTSTANDING_REQUESTS
    assert words in refusal.message
    assert await services.kinds() == ["state"]
    subject = control_subject("query", "vol1")
    status = await services.wire.requests.request(subject, PlainRequest(), MigrationStatus, timeout_s=10)
    assert status.allowed == ("cleanup",), "what would be refused is not allowed"


async def test_a_decision_that_is_on_its_way_is_waited_for(services: Services, host: ScriptedHost) -> None:
    await stories.back_in_setup_with_the_flag_set(host)
    assert (await refused(services, "sync")).code is Code.BUSY


# ------------------------------------------------------------------ two at once, and again


async def test_of_two_at_once_one_wins_and_the_other_is_told(services: Services, host: ScriptedHost) -> None:
    await stories.idle(host)
    results = await asyncio.gather(
        command(services, "sync"), command(services, "sync"), return_exceptions=True
    )
    won = [each for each in results if isinstance(each, CommandReply)]
    lost = [each for each in results if isinstance(each, Refusal)]
    assert [each.state for each in won] == [State.SYNCING]
    assert [each.code for each in lost] == [Code.BUSY]
    assert await services.kinds() == ["state", "flag-set", "state"]


async def test_commands_on_different_migrations_do_not_wait_for_each_other(
    services: Services, host: ScriptedHost
) -> None:
    await host.set_up("vol1", "u1", "op1")
    await host.set_up("vol2", "u2", "op2")
    replies = await asyncio.gather(command(services, "sync"), command(services, "sync", name="vol2"))
    assert [reply.state for reply in replies] == [State.SYNCING] * 2


async def test_asking_again_with_the_same_operation_id_reports_success(
    services: Services, host: ScriptedHost
) -> None:
    request = SetupRequest(source="/a", target="/b", operation_id="mine")
    first = await command(services, "setup", request)
    again = await command(services, "setup", request)
    assert (again.uuid, again.state, again.decision) == (first.uuid, first.state, first.decision)
    sync = PlainRequest(operation_id="sync-1")
    assert (await command(services, "sync", sync)).state is State.SYNCING
    await host.move("vol1", Trigger.COPIED)
    assert (await command(services, "sync", sync)).state is State.SYNCING  # what the operation led to
    assert host.asked.count("enter") == 1


async def test_a_cleanup_that_is_asked_for_again_is_done(services: Services, host: ScriptedHost) -> None:
    await stories.idle(host)
    request = CleanupRequest(operation_id="gone")
    await command(services, "cleanup", request)
    assert (await command(services, "cleanup", request)).state is None


async def test_an_operation_id_of_an_earlier_migration_of_the_name_is_refused(
    services: Services, host: ScriptedHost
) -> None:
    """A `commit` was said to be done, while the migration that has the name now went on as before."""
    await stories.target_selected(host)
    commit, cleanup = PlainRequest(operation_id="done"), CleanupRequest(operation_id="gone")
    await command(services, "commit", commit)
    await command(services, "cleanup", cleanup)
    assert (await command(services, "commit", commit)).state is State.COMMITTED  # nobody has the name yet
    await command(services, "setup", SETUP)
    for what, request in (("commit", commit), ("cleanup", cleanup)):
        refusal = await refused(services, what, request)
        assert refusal.code is Code.BAD_REQUEST
        assert "an earlier migration named 'vol1', which has been cleaned up" in refusal.message
    assert (await services.ledger()).state is State.SETUP


async def test_a_setup_that_comes_again_after_the_cleanup_begins_nothing(
    services: Services, host: ScriptedHost
) -> None:
    """It was said to be done, of a migration that is gone."""
    request = SetupRequest(source="/a", target="/b", operation_id="mine")
    await command(services, "setup", request)
    await command(services, "cleanup", CleanupRequest(operation_id="gone"))
    refusal = await refused(services, "setup", request)
    assert (refusal.code, (await services.ledger()).exists) == (Code.BAD_REQUEST, False)
    assert "an earlier migration named 'vol1'" in refusal.message
    await command(services, "setup", SETUP)


async def test_an_operation_id_is_of_one_command(services: Services, host: ScriptedHost) -> None:
    await command(services, "setup", SetupRequest(source="/a", target="/b", operation_id="mine"))
    assert (await refused(services, "sync", PlainRequest(operation_id="mine"))).code is Code.BAD_REQUEST


@pytest.mark.parametrize("operation", ["", "a b", "startup:set:x", "x" * 101, ".a"])
async def test_a_malformed_operation_id_is_refused(
    services: Services, host: ScriptedHost, operation: str
) -> None:
    await stories.idle(host)
    assert (await refused(services, "sync", PlainRequest(operation_id=operation))).code is Code.BAD_REQUEST


# ------------------------------------------------------------------ the host


async def test_a_host_that_is_away_is_said_at_once(services: Services, host: ScriptedHost) -> None:
    await stories.idle(host)
    async with asyncio.timeout(1):
        away = services.host(name="h2")
        await away.set_up("vol2", "u2", "op2")
        refusal = await refused(services, "sync", name="vol2")
    assert refusal.code is Code.HOST_AWAY
    assert "'h2'" in refusal.message
    assert await services.kinds("vol2") == ["state"]


async def test_what_is_not_allowed_is_said_even_when_the_host_is_away(services: Services) -> None:
    away = services.host()
    await stories.idle(away)
    assert (await refused(services, "commit")).code is Code.NOT_ALLOWED


async def test_a_host_that_hangs_is_said_in_time(
    services: Services, host: ScriptedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hosts.CHECK_TIMEOUT_S < 5
    monkeypatch.setattr(hosts, "CHECK_TIMEOUT_S", 0.1)
    await stories.idle(host)
    host.hanging = asyncio.Event()
    refusal = await refused(services, "sync")
    host.hanging.set()
    assert refusal.code is Code.HOST_AWAY
    assert await services.kinds() == ["state"]


async def test_a_decision_that_only_the_journal_misses_is_told(
    services: Services, host: ScriptedHost
) -> None:
    await stories.source_selected(host)
    host.reports = False
    reply = await command(services, "select-target")
    assert (reply.state, reply.witness, reply.journal) == (State.TARGET_SELECTED, True, False)
    assert reply.message


async def test_clients_that_are_connected_are_named(services: Services, host: ScriptedHost) -> None:
    await stories.idle(host)
    host.clients = ("pid 7",)
    refusal = await refused(services, "cleanup", CleanupRequest())
    assert refusal.code is Code.CLIENTS_CONNECTED
    assert "pid 7" in refusal.message
    assert (await command(services, "cleanup", CleanupRequest(disconnect=True))).state is None


async def test_a_host_that_does_not_have_it_open_is_not_asked(services: Services, host: ScriptedHost) -> None:
    await stories.idle(host)
    host.witnesses.clear()
    assert (await refused(services, "sync")).code is Code.NOT_ADMITTED
    assert await services.kinds() == ["state"]


@pytest.mark.parametrize("what", ["pause", "resume"])
async def test_the_copier_is_steered_by_the_host(services: Services, host: ScriptedHost, what: str) -> None:
    await stories.syncing(host)
    before = await services.kinds()
    assert (await command(services, what)).state is State.SYNCING
    assert what in host.asked
    assert await services.kinds() == before


@pytest.mark.parametrize("limit", [0, -1, 1 << 60])
async def test_a_throttle_that_is_none_is_refused(services: Services, host: ScriptedHost, limit: int) -> None:
    await stories.syncing(host)
    assert (await refused(services, "throttle", ThrottleRequest(bytes_per_s=limit))).code is Code.BAD_REQUEST
    assert (await command(services, "throttle", ThrottleRequest(bytes_per_s=1))).state is State.SYNCING


async def test_a_resumed_migration_can_be_led_on(services: Services) -> None:
    host = services.host()
    await cleanly(stories.source_selected)(host)
    admission = (await services.admit(host, run=2)).admitted[0]
    host.run = 2
    host.adopt(admission)
    async with services.wire.endpoints.serve(host.description(), host.endpoints()):
        assert (await command(services, "select-target")).state is State.TARGET_SELECTED
        assert (await command(services, "commit")).state is State.COMMITTED
