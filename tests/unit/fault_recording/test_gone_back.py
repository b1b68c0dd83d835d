"""Nothing is stored on a journal that lacks what the asker relied on: on top of it, a loss would look like a whole chain."""

from dataclasses import replace

import pytest

from shared.bus.memory import MemoryBroker
from shared.messages.recording import (
    ClearFlagRequest,
    DecisionRequest,
    FaultReport,
    Origin,
    RecordFaultRequest,
    SetFlagRequest,
    StoredReply,
    decision_subject,
    record_subject,
)
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support import stories
from tests.support.scripted_host import AT, ScriptedHost
from tests.support.services import Services


def _set(origin: Origin, tail: str) -> tuple[str, object]:
    request = SetFlagRequest(origin=replace(origin, attempt=2), tail_digest=tail)
    return record_subject("flag-set", origin.host, "vol1"), request


def _clear(origin: Origin, tail: str) -> tuple[str, object]:
    request = ClearFlagRequest(origin=origin, set_digest=tail, tail_digest=tail)
    return record_subject("flag-clear", origin.host, "vol1"), request


def _fault(origin: Origin, _tail: str) -> tuple[str, object]:
    fault = FaultReport(
        operation_id="op-fault", side=Side.TARGET, state=State.SYNCING, attempt=2, operation="write", cause="EIO",
        detected_at=AT,
    )  # fmt: skip
    return record_subject("fault", origin.host, "vol1"), RecordFaultRequest(origin=origin, fault=fault)


def _decision(origin: Origin, _tail: str) -> tuple[str, object]:
    request = DecisionRequest(
        origin=replace(origin, decision=9, attempt=2),
        state=State.SOURCE_SELECTED,
        authority=Side.SOURCE,
        trigger="copied",
    )
    return decision_subject(origin.host, "vol1"), request


async def _gone_back(services: Services, broker: MemoryBroker) -> ScriptedHost:
    """Back to the end of the first attempt, while the host is in the second."""
    host = services.host()
    await stories.back_in_setup_with_the_flag_set(host)
    host.reports = True
    await host.report("vol1")
    await host.clear_flag()
    kept = len(broker.messages)
    await host.sync()
    del broker.messages[kept:]
    return host


@pytest.mark.parametrize("ask", [_set, _clear, _fault, _decision])
async def test_nothing_is_stored_on_a_journal_that_went_back(
    services: Services, broker: MemoryBroker, ask: object
) -> None:
    host = await _gone_back(services, broker)
    before = await services.kinds()
    ledger = await services.ledger()
    assert ledger.broken is None, "the chain itself looks whole"
    subject, request = ask(host.origin("vol1", "op-new"), ledger.tail.digest)  # type: ignore[operator]
    with pytest.raises(Refusal, match="gone back") as caught:
        await services.wire.requests.request(subject, request, StoredReply, timeout_s=5)
    assert caught.value.code is Code.JOURNAL_UNSOUND
    assert await services.kinds() == before
