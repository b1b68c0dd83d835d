"""The fault log: one record for each fault, in every state of its attempt, and none from the past."""

import asyncio
from dataclasses import replace

import pytest

from shared.messages.recording import FaultReport, RecordFaultRequest, StoredReply, record_subject
from shared.migration.devices import Side
from shared.migration.records import ADOPTED, FaultRecord, StateRecord
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support import stories
from tests.support.scripted_host import AT, ScriptedHost
from tests.support.services import Services
from tests.support.stories import Story

FAULT = FaultReport(
    operation_id="x",
    side=Side.SOURCE,
    state=State.SYNCING,
    attempt=1,
    operation="read",
    cause="EIO",
    errno=5,
    offset=4096,
    length=512,
    detected_at=AT,
)


async def record(
    services: Services, host: ScriptedHost, fault: FaultReport = FAULT, /, **changes: object
) -> StoredReply:
    origin = replace(host.origin("vol1", fault.operation_id), **changes)  # type: ignore[arg-type]
    request = RecordFaultRequest(origin=origin, fault=fault)
    return await services.wire.requests.request(
        record_subject("fault", origin.host, "vol1"), request, StoredReply, timeout_s=5
    )


async def refused(
    services: Services, host: ScriptedHost, fault: FaultReport = FAULT, /, **changes: object
) -> Code:
    before = await services.kinds()
    with pytest.raises(Refusal) as caught:
        await record(services, host, fault, **changes)
    assert await services.kinds() == before
    return caught.value.code


async def test_a_fault_is_recorded_as_it_was_detected(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    await record(services, host)
    recorded = (await services.ledger()).faults[0]
    assert isinstance(recorded, FaultRecord)
    assert (recorded.side, recorded.operation, recorded.cause, recorded.errno) == (
        Side.SOURCE,
        "read",
        "EIO",
        5,
    )
    assert (recorded.offset, recorded.length, recorded.detected_at) == (4096, 512, AT)
    assert (recorded.host, recorded.run, recorded.attempt) == ("h1", 1, 1)


async def test_reporting_again_leaves_one(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    assert await record(services, host) == await record(services, host)
    assert (await services.kinds()).count("fault") == 1


@pytest.mark.parametrize(
    "story",
    [
        stories.syncing,
        stories.source_selected,
        stories.target_selected,
        stories.source_lost,
        stories.committed,
    ],
)
async def test_a_fault_of_the_current_attempt_is_taken_in_any_state(services: Services, story: Story) -> None:
    host = services.host()
    await story(host)
    await record(services, host)


async def test_a_fault_is_taken_before_the_decision_to_enter_has_arrived(services: Services) -> None:
    host = services.host()
    await stories.flagged_but_never_entered(host)
    await record(services, host)
    ledger = await services.ledger()
    assert ledger.attempt == 0
    assert len(ledger.all_faults) == 1


async def test_a_fault_of_an_older_attempt_is_refused(services: Services) -> None:
    host = services.host()
    await stories.back_in_setup_with_the_flag_set(host)
    host.reports = True
    await host.report("vol1")
    await host.clear_flag()
    await host.sync()
    assert await refused(services, host) is Code.STALE


@pytest.mark.parametrize(("field", "value"), [("uuid", "other"), ("host", "h2"), ("run", 0), ("decision", 0)])
async def test_whoever_speaks_from_the_past_or_of_another_is_refused(
    services: Services, field: str, value: object
) -> None:
    host = services.host()
    await stories.syncing(host)
    assert await refused(services, host, FAULT, **{field: value}) is Code.STALE


async def test_faults_are_of_the_host_that_an_operator_gave_the_migration_to(services: Services) -> None:
    host, other = services.host(), services.host(name="h2")
    await stories.syncing(host)
    ledger = await services.ledger()
    word = StateRecord(
        migration="vol1", uuid=str(ledger.uuid), attempt=1, host="h2", run=1, decision=3, operation_id="op-adopt",
        recorded_at=AT, state=State.SETUP, authority=Side.SOURCE, trigger=ADOPTED,
    )  # fmt: skip
    await services.wire.journal.append(word, ledger.tail)
    assert await refused(services, host, FAULT, decision=3) is Code.STALE
    other.witnesses["vol1"] = replace(host.witnesses["vol1"], host="h2", decision=3)
    await record(services, other)
    assert (await services.ledger()).faults[0].host == "h2"


async def test_what_startup_finds_is_recorded_only_on_what_it_has_judged(services: Services) -> None:
    """A host that another startup has admitted meanwhile may clone in a later attempt by now, or have failed otherwise."""
    host = services.host()
    await stories.syncing(host)
    found = replace(FAULT, operation_id="startup:unclean:u1:1:flag")
    tail_digest = (await record(services, host)).digest
    assert await refused(services, host, found) is Code.STALE
    first = await record(services, host, found, relies_on=tail_digest)
    assert await record(services, host, found, relies_on=tail_digest) == first, "it is there already"


async def test_many_faults_at_once_are_all_recorded(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    await asyncio.gather(
        *(record(services, host, replace(FAULT, operation_id=f"x{number}")) for number in range(6))
    )
    ledger = await services.ledger()
    assert ledger.broken is None
    assert len(ledger.faults) == 6
