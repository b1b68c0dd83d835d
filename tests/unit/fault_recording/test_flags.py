"""When the error flag is set and cleared: the rules by which a stale target is never taken for a good one."""

from dataclasses import replace

import pytest

from services.fault_recording.service import FaultRecording
from shared.bus.memory import AcceptedDurability, MemoryBroker
from shared.messages.recording import (
    ClearFlagRequest,
    FaultReport,
    RecordFaultRequest,
    SetFlagRequest,
    StoredReply,
    record_subject,
)
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag, State
from shared.migration.table import Trigger
from tests.support import stories
from tests.support.scripted_host import AT, ScriptedHost
from tests.support.services import Services, StoppedClock
from tests.support.stories import cleanly

Request = SetFlagRequest | ClearFlagRequest | RecordFaultRequest


async def ask(
    services: Services, what: str, request: Request, name: str = "vol1", sender: str | None = None
) -> StoredReply:
    subject = record_subject(what, sender or request.origin.host, name)
    return await services.wire.requests.request(subject, request, StoredReply, timeout_s=5)


async def refused(
    services: Services,
    what: str,
    request: Request,
    code: Code,
    name: str = "vol1",
    sender: str | None = None,
) -> Refusal:
    before = await services.kinds()
    with pytest.raises(Refusal) as caught:
        await ask(services, what, request, name, sender)
    assert caught.value.code is code, caught.value.message
    assert await services.kinds() == before
    return caught.value


async def clear_request(services: Services, host: ScriptedHost, **changes: object) -> ClearFlagRequest:
    ledger = await services.ledger()
    assert ledger.flag_entry is not None
    request = ClearFlagRequest(
        origin=host.origin("vol1", "op-clear"),
        set_digest=ledger.flag_entry.digest,
        tail_digest=ledger.tail.digest,
    )
    return replace(request, **changes)  # type: ignore[arg-type]


async def set_request(host: ScriptedHost, /, **changes: object) -> SetFlagRequest:
    origin = replace(host.origin("vol1", "op-set"), attempt=host.witnesses["vol1"].attempt + 1)
    tail = (await host.journal.read("vol1")).tail
    return SetFlagRequest(origin=replace(origin, **changes), tail_digest=tail.digest)  # type: ignore[arg-type]


def fault(operation: str = "x", attempt: int = 1) -> FaultReport:
    return FaultReport(
        operation_id=operation, side=Side.TARGET, state=State.SYNCING, attempt=attempt, operation="write",
        cause="EIO", detected_at=AT,
    )  # fmt: skip


# ------------------------------------------------------------------ set


async def test_the_flag_is_set_for_the_next_attempt(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    stored = await ask(services, "flag-set", await set_request(host))
    ledger = await services.ledger()
    assert ledger.flag is Flag.SET
    assert ledger.flag_entry is not None
    assert (stored.digest, stored.index) == (ledger.flag_entry.digest, 2)


async def test_asking_again_for_the_same_set_leaves_one(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    assert await ask(services, "flag-set", await set_request(host)) == await ask(
        services, "flag-set", await set_request(host)
    )
    assert await services.kinds() == ["state", "flag-set"]


async def test_a_set_whose_flag_was_cleared_since_is_spent(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    await ask(services, "flag-set", await set_request(host))
    await host.clear_flag()
    await refused(services, "flag-set", await set_request(host), Code.STALE)


async def test_a_second_sync_may_set_it_over_one_that_came_to_nothing(services: Services) -> None:
    host = services.host()
    await stories.flagged_but_never_entered(host)
    await ask(services, "flag-set", await set_request(host))
    assert await services.kinds() == ["state", "flag-set", "flag-set"]


async def test_a_set_that_comes_late_does_not_stand_in_for_the_flag_that_somebody_enters_with(
    services: Services,
) -> None:
    """The host has looked at the flag before its turn to enter, and clones under it; the journal says `setup` until then."""
    host = services.host()
    await stories.idle(host)
    late = await set_request(host, operation_id="op-earlier")
    stored = await ask(services, "flag-set", await set_request(host))
    await refused(services, "flag-set", late, Code.STALE)
    assert (await services.ledger()).tail.digest == stored.digest


@pytest.mark.parametrize("attempt", [0, 2])
async def test_the_flag_is_not_set_for_another_attempt(services: Services, attempt: int) -> None:
    host = services.host()
    await stories.idle(host)
    await refused(services, "flag-set", await set_request(host, attempt=attempt), Code.STALE)


async def test_the_flag_is_not_set_while_cloning_under_one(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    for attempt in (1, 2):
        await refused(services, "flag-set", await set_request(host, attempt=attempt), Code.NOT_ALLOWED)


async def test_the_flag_is_not_set_once_committed(services: Services) -> None:
    host = services.host()
    await stories.committed(host)
    await refused(services, "flag-set", await set_request(host), Code.NOT_ALLOWED)


async def test_the_flag_is_set_anew_for_an_attempt_that_goes_on(services: Services) -> None:
    host = services.host()
    await cleanly(stories.syncing)(host)
    await refused(services, "flag-set", await set_request(host), Code.STALE)
    await ask(services, "flag-set", await set_request(host, attempt=1))
    assert (await services.ledger()).flag is Flag.SET


@pytest.mark.parametrize(("field", "value"), [("uuid", "other"), ("host", "h2"), ("run", 0), ("decision", 0)])
async def test_whoever_speaks_from_the_past_or_of_another_is_refused(
    services: Services, field: str, value: object
) -> None:
    host = services.host()
    await stories.idle(host)
    refusal = await refused(services, "flag-set", await set_request(host, **{field: value}), Code.STALE)
    assert field.upper() in refusal.message.upper()


async def test_a_migration_that_is_not_there_has_no_flag(services: Services) -> None:
    host = services.host()
    await stories.committed(host)
    await host.move("vol1", Trigger.CLEANUP)
    await refused(services, "flag-set", await set_request(host), Code.UNKNOWN_MIGRATION)


async def test_a_damaged_journal_takes_no_flag(services: Services, broker: MemoryBroker) -> None:
    host = services.host()
    await cleanly(stories.syncing)(host)
    del broker.messages[1]
    await refused(services, "flag-set", await set_request(host, attempt=1), Code.JOURNAL_UNSOUND)


async def test_the_subject_names_the_migration_of_the_request(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    await refused(services, "flag-set", await set_request(host), Code.BAD_REQUEST, name="vol2")


async def test_the_subject_names_the_host_of_the_request(services: Services) -> None:
    """The server lets a host publish where its own name stands: a request in another's name must not pass with that."""
    host = services.host()
    await cleanly(stories.syncing)(host)
    again = await set_request(host, attempt=1)
    assert "host 'h2'" in (await refused(services, "flag-set", again, Code.BAD_REQUEST, sender="h2")).message
    await ask(services, "flag-set", again)
    clear = await clear_request(services, host)
    await refused(services, "flag-clear", clear, Code.BAD_REQUEST, sender="h2")
    report = RecordFaultRequest(origin=host.origin("vol1", "x"), fault=fault())
    await refused(services, "fault", report, Code.BAD_REQUEST, sender="h2")
    await ask(services, "fault", report)


async def test_a_host_clears_no_flag_of_another_that_clones(services: Services) -> None:
    """Everything that the request needs stands in the journal, which every host reads."""
    host = services.host()
    await stories.syncing(host)
    request = await clear_request(services, host, faults=(fault(),))
    strange = replace(request, origin=replace(request.origin, host="h2"))
    refusal = await refused(services, "flag-clear", strange, Code.STALE)
    assert "belongs to host 'h1'" in refusal.message
    assert (await services.ledger()).flag is Flag.SET
    await ask(services, "flag-clear", request)


async def test_no_flag_is_set_where_a_power_cut_could_take_it(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    durability = AcceptedDurability("not synced")
    recording = FaultRecording(services.wire.journal, durability, StoppedClock())
    with pytest.raises(Refusal) as caught:
        await recording.set_flag("h1", "vol1", await set_request(host))
    assert caught.value.code is Code.JOURNAL_UNSYNCED
    assert await services.kinds() == ["state"]


async def test_a_flag_that_was_set_on_another_server_is_not_answered_for(services: Services) -> None:
    """The connection moved, between the check and the record, to a server that does not sync."""
    host = services.host()
    await stories.idle(host)

    class Moving(AcceptedDurability):
        async def require(self) -> None:
            await super().require()
            self.lacking = "the server after the first"

    recording = FaultRecording(services.wire.journal, Moving(), StoppedClock())
    with pytest.raises(Refusal) as caught:
        await recording.set_flag("h1", "vol1", await set_request(host))
    assert caught.value.code is Code.JOURNAL_UNSYNCED


# ------------------------------------------------------------------ clear


async def test_the_flag_is_cleared_after_the_faults_that_come_with_it(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    request = await clear_request(services, host, faults=(fault("a"), fault("b")))
    await ask(services, "flag-clear", request)
    assert (await services.kinds())[-3:] == ["fault", "fault", "flag-clear"]
    assert (await services.ledger()).flag is Flag.CLEAR


async def test_faults_that_are_recorded_are_not_recorded_again(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    await host.fail()
    request = await clear_request(services, host, faults=host.witnesses["vol1"].faults)
    await ask(services, "flag-clear", request)
    assert (await services.kinds()).count("fault") == 1


async def test_a_clear_that_was_interrupted_after_its_faults_goes_on(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    request = await clear_request(services, host, faults=(fault("a"), fault("b")))
    await ask(services, "fault", RecordFaultRequest(origin=host.origin("vol1", "a"), fault=fault("a")))
    await ask(services, "flag-clear", request)
    assert (await services.kinds())[-3:] == ["fault", "fault", "flag-clear"]


async def test_asking_again_for_the_same_clear_leaves_one(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    request = await clear_request(services, host)
    first = await ask(services, "flag-clear", request)
    assert await ask(services, "flag-clear", request) == first
    again = replace(request, origin=replace(request.origin, operation_id="another"))
    assert await ask(services, "flag-clear", again) == first


async def test_a_clear_of_another_flag_is_refused(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    await refused(services, "flag-clear", await clear_request(services, host, set_digest="other"), Code.STALE)


async def test_a_clear_of_an_older_flag_is_refused(services: Services) -> None:
    host = services.host()
    await cleanly(stories.syncing)(host)
    older = (await services.ledger()).entries[1].digest
    await ask(services, "flag-set", await set_request(host, attempt=1))
    await refused(services, "flag-clear", await clear_request(services, host, set_digest=older), Code.STALE)


async def test_a_clear_that_was_decided_before_another_fault_is_refused(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    request = await clear_request(services, host, faults=(fault("mine"),))
    await host.fail()
    refusal = await refused(services, "flag-clear", request, Code.STALE)
    assert "fault" in refusal.message


async def test_a_clear_that_was_decided_before_a_transition_is_refused(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    request = await clear_request(services, host)
    await host.move("vol1", Trigger.COPIED)
    newer = replace(request, origin=replace(request.origin, decision=3))
    await refused(services, "flag-clear", newer, Code.STALE)


async def test_a_clear_that_was_decided_on_a_record_that_is_gone_is_refused(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    await refused(services, "flag-clear", await clear_request(services, host, tail_digest="gone"), Code.STALE)


async def test_a_clear_by_an_older_run_is_refused(services: Services) -> None:
    host = services.host(run=3)
    await stories.syncing(host)
    request = await clear_request(services, host)
    await refused(services, "flag-clear", replace(request, origin=replace(request.origin, run=2)), Code.STALE)


async def test_a_clear_is_refused_on_a_damaged_journal(services: Services, broker: MemoryBroker) -> None:
    host = services.host()
    await stories.source_selected(host)
    request = await clear_request(services, host)
    del broker.messages[2]
    await refused(services, "flag-clear", request, Code.JOURNAL_UNSOUND)
