"""Decisions are recorded whatever the journal says, but never from the past, and never twice."""

from dataclasses import replace

import pytest

from shared.bus.memory import MemoryBroker
from shared.messages.recording import (
    DecisionRequest,
    RepairRequest,
    StoredReply,
    decision_subject,
    repair_subject,
)
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Trigger
from tests.support import stories
from tests.support.scripted_host import ScriptedHost
from tests.support.services import Services


def decision(
    host: ScriptedHost, /, *, number: int, operation: str = "op-new", **changes: object
) -> DecisionRequest:
    origin = replace(host.origin("vol1", operation), decision=number)
    request = DecisionRequest(
        origin=origin, state=State.TARGET_SELECTED, authority=Side.SOURCE, trigger="select-target"
    )
    return replace(request, **changes)  # type: ignore[arg-type]


async def record(services: Services, request: DecisionRequest) -> StoredReply:
    subject = decision_subject(request.origin.host, "vol1")
    return await services.wire.requests.request(subject, request, StoredReply, timeout_s=5)


async def refused(
    services: Services, request: DecisionRequest | RepairRequest, sender: str | None = None
) -> Refusal:
    subject_of = decision_subject if isinstance(request, DecisionRequest) else repair_subject
    subject = subject_of(sender or request.origin.host, "vol1")
    before = await services.kinds()
    with pytest.raises(Refusal) as caught:
        await services.wire.requests.request(subject, request, StoredReply, timeout_s=5)
    assert await services.kinds() == before
    return caught.value


def repair(host: ScriptedHost, witness_digest: str) -> RepairRequest:
    witness = host.witnesses["vol1"]
    return RepairRequest(
        origin=host.origin("vol1", "op-repair"),
        witness_digest=witness_digest,
        state=witness.state or State.SETUP,
        authority=witness.authority,
        target_fault=False,
        source_fault=False,
        reason="of a test",
        devices=witness.devices,
    )


async def test_a_decision_is_recorded_whatever_the_table_says(services: Services) -> None:
    """The host has acted on it already: the journal only follows."""
    host = services.host()
    await stories.syncing(host)
    await host.fail()
    await record(services, decision(host, number=3))
    assert (await services.ledger()).state is State.TARGET_SELECTED


async def test_a_decision_that_is_repeated_is_there_once(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    request = decision(host, number=3)
    assert await record(services, request) == await record(services, request)
    assert (await services.kinds()).count("state") == 3


async def test_decisions_may_be_passed_over(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    await record(services, decision(host, number=7))
    assert (await services.ledger()).decision == 7


async def test_what_startup_decides_is_recorded_only_on_what_it_has_judged(services: Services) -> None:
    """Whoever is admitted by another startup may have set the flag since, and clone."""
    host = services.host()
    await stories.idle(host)
    request = decision(host, number=2, operation="startup:idle:u1:2", trigger="idle", state=State.SETUP)
    digest = await host.set_flag()
    assert (await refused(services, request)).code is Code.STALE
    await record(services, replace(request, origin=replace(request.origin, relies_on=digest)))
    assert (await services.ledger()).decision == 2


@pytest.mark.parametrize("number", [1, 2])
async def test_an_older_decision_is_refused(services: Services, number: int) -> None:
    host = services.host()
    await stories.syncing(host)
    assert (await refused(services, decision(host, number=number))).code is Code.STALE


async def test_an_operation_id_that_comes_twice_does_not_hide_a_decision(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    await record(services, decision(host, number=3, operation="same"))
    await record(services, decision(host, number=4, operation="same", state=State.SOURCE_SELECTED))
    assert (await services.ledger()).state is State.SOURCE_SELECTED


@pytest.mark.parametrize(("field", "value"), [("uuid", "other"), ("host", "h2"), ("run", 0), ("attempt", 0)])
async def test_whoever_speaks_from_the_past_or_of_another_is_refused(
    services: Services, field: str, value: object
) -> None:
    host = services.host()
    await stories.syncing(host)
    request = decision(host, number=3)
    origin = replace(request.origin, **{field: value})  # type: ignore[arg-type]
    assert (await refused(services, replace(request, origin=origin))).code is Code.STALE


async def test_the_subject_names_the_host_of_the_request(services: Services) -> None:
    """The server lets a host publish where its own name stands: a request in another's name must not pass with that."""
    host = services.host()
    await stories.syncing(host)
    assert (await refused(services, decision(host, number=3), sender="h2")).code is Code.BAD_REQUEST
    assert (await refused(services, repair(host, "lost"), sender="h2")).code is Code.BAD_REQUEST


async def test_a_host_decides_nothing_of_another(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    request = decision(host, number=3)
    strange = replace(request, origin=replace(request.origin, host="h2"))
    assert "belongs to host 'h1'" in (await refused(services, strange)).message
    await record(services, request)
    refusal = await refused(services, strange)  # nor is it answered with the other's record, as with its own
    assert "belongs to host 'h1'" in refusal.message


async def test_the_first_decision_makes_a_migration_the_hosts(services: Services) -> None:
    host = services.host()
    host.reports = False
    await host.set_up()
    devices = host.witnesses["vol1"].devices
    request = decision(host, number=1, trigger="setup", state=State.SETUP, devices=devices)
    assert (await refused(services, request, sender="h2")).code is Code.BAD_REQUEST
    await record(services, request)
    assert (await services.ledger()).host == "h1"
    strange = replace(request, origin=replace(request.origin, host="h2", uuid="other"))
    assert (await refused(services, strange)).code is Code.NAME_TAKEN


async def test_a_second_setup_is_refused(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    request = decision(
        host, number=1, trigger="setup", state=State.SETUP, devices=host.witnesses["vol1"].devices
    )
    assert (await refused(services, request)).code is Code.STALE
    other = replace(request, origin=replace(request.origin, uuid="other"))
    assert (await refused(services, other)).code is Code.NAME_TAKEN


async def test_a_setup_that_comes_late_does_not_raise_the_dead(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    witness = host.witnesses["vol1"]
    late = decision(host, number=1, trigger="setup", state=State.SETUP, devices=witness.devices)
    await host.move("vol1", Trigger.CLEANUP)
    assert (await refused(services, late)).code is Code.STALE
    assert not (await services.ledger()).exists


async def test_a_first_decision_names_its_devices(services: Services) -> None:
    host = services.host()
    host.reports = False
    await host.set_up()
    request = decision(host, number=1, trigger="setup", state=State.SETUP)
    assert (await refused(services, request)).code is Code.BAD_REQUEST


async def test_a_decision_of_nothing_is_refused(services: Services) -> None:
    host = services.host()
    host.reports = False
    await host.set_up()
    assert (await refused(services, decision(host, number=2))).code is Code.UNKNOWN_MIGRATION


async def test_a_damaged_journal_takes_no_decision_before_it_is_repaired(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.source_selected(host)
    del broker.messages[2]
    assert (await refused(services, decision(host, number=4))).code is Code.JOURNAL_UNSOUND


async def test_a_journal_that_is_whole_is_not_repaired(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    refusal = await refused(services, repair(host, host.witnesses["vol1"].tail_digest))
    assert refusal.code is Code.NOT_ALLOWED


async def test_a_repair_is_not_taken_for_another_migration_of_the_name(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.syncing(host)
    request = repair(host, "lost")
    other = replace(request, origin=replace(request.origin, uuid="other"))
    assert (await refused(services, other)).code is Code.STALE


async def test_a_repair_is_not_taken_for_another_host(services: Services, broker: MemoryBroker) -> None:
    host = services.host()
    await stories.source_selected(host)
    del broker.messages[2]
    request = repair(host, "lost")
    strange = replace(request, origin=replace(request.origin, host="h2"))
    assert "belongs to host 'h1'" in (await refused(services, strange)).message


@pytest.mark.parametrize("kept", [0, 2])
async def test_a_repair_lets_the_chain_go_on(services: Services, broker: MemoryBroker, kept: int) -> None:
    host = services.host()
    await stories.source_selected(host)
    del broker.messages[kept:]
    subject = repair_subject("h1", "vol1")
    request = repair(host, host.witnesses["vol1"].tail_digest)
    first = await services.wire.requests.request(subject, request, StoredReply, timeout_s=5)
    assert await services.wire.requests.request(subject, request, StoredReply, timeout_s=5) == first
    await record(services, decision(host, number=4))
    ledger = await services.ledger()
    assert ledger.broken is None
    assert ledger.contains(host.witnesses["vol1"].tail_digest)
    assert ledger.state is State.TARGET_SELECTED
