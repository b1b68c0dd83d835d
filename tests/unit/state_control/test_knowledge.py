"""What journal and witness know together: when the witness counts as the newest, and who holds every write by that."""

from dataclasses import replace

import pytest

from services.state_control.adoption import decide_adoption, decide_burial, decide_mending, fault_of
from services.state_control.describing import choice_views
from services.state_control.knowledge import Knowledge
from shared.bus.memory import MemoryBroker
from shared.messages.admission import WitnessView
from shared.messages.host import HostStatusReply
from shared.messages.recording import (
    DecisionRequest,
    FaultReport,
    RecordFaultRequest,
    StoredReply,
    decision_subject,
    record_subject,
)
from shared.messages.recovery import ExamineReply, Finding
from shared.migration.devices import Side
from shared.migration.records import ADOPTED, IntentRecord, RepairRecord, StateRecord, TombstoneRecord
from shared.migration.recovery import Held, Standing
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Trigger
from tests.support import stories
from tests.support.scripted_host import AT, ScriptedHost
from tests.support.services import Services, StoppedClock
from tests.support.stories import Story, cleanly


async def know(
    services: Services,
    host: ScriptedHost,
    witness: WitnessView | None,
    *,
    standing: Standing = Standing.CLOSED,
) -> Knowledge:
    return Knowledge(
        ledger=await services.ledger(),
        host=host.name,
        standing=standing,
        status=HostStatusReply(host=host.name, run=host.run),
        examined=ExamineReply(witness=witness),
    )


@pytest.mark.parametrize(
    ("story", "held"),
    [
        (stories.idle, Held.SOURCE_ALONE),
        (stories.syncing, Held.SOURCE),
        (stories.source_selected, Held.BOTH_BUT_THE_LAST),
        (cleanly(stories.target_selected), Held.BOTH),
        (stories.target_failed_unheard, Held.SOURCE),
        (stories.back_in_setup_with_the_flag_set, Held.SOURCE),
        (stories.source_lost, Held.TARGET),
        (stories.committed, Held.TARGET),
        (stories.committed_with_the_flag_set, Held.TARGET),
    ],
)
async def test_the_newest_witness_proves_who_holds_what(services: Services, story: Story, held: Held) -> None:
    host = services.host()
    await story(host)
    knowledge = await know(services, host, host.witnesses["vol1"])
    assert (knowledge.is_proved, knowledge.doubt) == (True, "")
    assert knowledge.held is held


async def test_the_witness_of_an_open_volume_is_not_looked_at_and_its_host_is_not_called_away(
    services: Services,
) -> None:
    host = services.host()
    await stories.source_selected(host)
    knowledge = replace(await know(services, host, None, standing=Standing.OPEN), examined=None)
    assert knowledge.doubt == "its host has it in use, and is not asked"
    assert replace(knowledge, standing=Standing.AWAY).doubt == "its host does not answer"
    waiting = replace(knowledge, standing=Standing.WAITING, waits_because="Host 'h1' is up.", status=None)
    assert (waiting.doubt, waiting.why_closed) == (
        "its host is not admitted yet, and cannot be asked",
        "Host 'h1' is up.",
    )


async def test_a_commit_that_the_journal_never_heard_of_counts(services: Services) -> None:
    host = services.host()
    await stories.target_selected(host)
    host.reports = False
    await host.move("vol1", Trigger.COMMIT)
    knowledge = await know(services, host, host.witnesses["vol1"])
    assert (knowledge.is_proved, knowledge.held) == (True, Held.TARGET)
    without = await know(services, host, None)
    assert (without.is_proved, without.held) == (False, Held.BOTH_BUT_THE_LAST)


async def test_a_commit_that_was_asked_for_is_a_matter_of_doubt_without_the_witness(
    services: Services,
) -> None:
    host = services.host()
    await stories.target_selected(host)
    witness = host.witnesses["vol1"]
    ledger = await services.ledger()
    intent = IntentRecord(
        migration="vol1", uuid=witness.uuid, attempt=1, host="h1", run=1, decision=witness.decision,
        operation_id="op-commit", recorded_at=AT,
    )  # fmt: skip
    await services.wire.journal.append(intent, ledger.tail)
    assert (await know(services, host, None)).held is Held.DISPUTED
    assert (await know(services, host, witness)).held is Held.BOTH_BUT_THE_LAST


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"host": "h9"}, "of host 'h9'"),
        ({"uuid": "other"}, "with the UUID other"),
        ({"opened_run": None}, "old copy"),
        ({"opened_run": 2}, "old copy"),
        ({"decision": 1}, "older: of decision 1"),
    ],
)
async def test_another_witness_proves_nothing(
    services: Services, changes: dict[str, object], doubt: str
) -> None:
    host = services.host()
    await cleanly(stories.source_selected)(host)
    witness = replace(host.witnesses["vol1"], **changes)  # type: ignore[arg-type]
    knowledge = await know(services, host, witness)
    assert not knowledge.is_proved
    assert doubt in knowledge.doubt
    assert knowledge.held in {Held.BOTH, Held.BOTH_BUT_THE_LAST}


@pytest.mark.parametrize(
    "changes", [{"state": State.TARGET_SELECTED}, {"authority": Side.TARGET}, {"attempt": 2}]
)
async def test_no_side_is_called_safe_where_journal_and_witness_tell_otherwise_of_one_decision(
    services: Services, changes: dict[str, object]
) -> None:
    """Cause: the journal counted, since it had a decision of that number. Failing, a source that misses writes is called safe."""
    host = services.host()
    await cleanly(stories.source_selected)(host)
    witness = replace(host.witnesses["vol1"], **changes)  # type: ignore[arg-type]
    examined = ExamineReply(witness=witness, source=Finding(usable=True), target=Finding(usable=True))
    knowledge = replace(await know(services, host, witness), examined=examined)
    assert knowledge.doubt == f"the journal tells otherwise of decision {witness.decision}"
    assert (knowledge.is_proved, knowledge.held) == (False, Held.DISPUTED)
    made = {each.choice: each.consent for each in choice_views(knowledge, None)}
    assert (made["adopt-source"], made["adopt-target"]) == ("asks", "asks")


async def test_an_old_witness_of_a_committed_target_is_no_reason_to_forget_the_commit(
    services: Services,
) -> None:
    host = services.host()
    await stories.target_selected(host)
    old = host.witnesses["vol1"]
    await host.move("vol1", Trigger.COMMIT)
    knowledge = await know(services, host, old)
    assert (knowledge.is_proved, knowledge.held) == (False, Held.DISPUTED)


async def test_the_host_that_it_was_given_to_is_believed_before_a_journal_from_before_that_but_proves_nothing(
    services: Services, broker: MemoryBroker
) -> None:
    """Cause: only the journal was. Failing, a target that misses every write since then is called the same as the source."""
    lost, other = services.host(run=7), services.host(name="h2")
    await cleanly(stories.source_selected)(lost)
    kept, knowledge = list(broker.messages), await know(services, other, None)
    word = decide_adoption(knowledge, Side.SOURCE, "op", knowledge.ledger, StoppedClock())
    await services.wire.journal.append(word, knowledge.ledger.tail)  # type: ignore[arg-type]
    other.adopt((await services.admit(other)).admitted[0])
    broker.messages[:] = kept
    knowledge = await know(services, other, other.witnesses["vol1"])
    assert knowledge.doubt.startswith("by the journal, which has gone back, host 'h1' has it")
    assert (knowledge.is_proved, knowledge.held) == (False, Held.SOURCE)
    assert "gone back" in knowledge.tellings()[0].doubt
    lost_witness = lost.witnesses["vol1"]
    assert (await know(services, other, lost_witness)).held is Held.BOTH, "of another host"


async def test_a_journal_that_went_back_is_outweighed_by_the_newest_witness(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.source_lost(host)
    del broker.messages[3:]
    knowledge = await know(services, host, host.witnesses["vol1"])
    assert (knowledge.is_proved, knowledge.held) == (True, Held.TARGET)
    assert "gone back" in knowledge.tellings()[0].doubt


async def test_a_side_whose_device_is_another_is_refused_with_the_words_of_its_host(
    services: Services,
) -> None:
    host = services.host()
    await cleanly(stories.source_selected)(host)
    changed = Finding(usable=False, code=Code.DEVICE_CHANGED, message="The source /s is another.")
    knowledge = replace(
        await know(services, host, host.witnesses["vol1"]),
        examined=ExamineReply(witness=host.witnesses["vol1"], source=changed, target=Finding(usable=True)),
    )
    made = {each.choice: each for each in choice_views(knowledge, None)}
    assert (made["adopt-source"].consent, made["adopt-source"].reason) == (
        "refused",
        "The source /s is another",
    )
    assert made["adopt-target"].consent == "safe"
    with pytest.raises(Refusal) as caught:
        knowledge.refuse_unusable(Side.SOURCE)
    assert (caught.value.code, caught.value.message) == (Code.DEVICE_CHANGED, changed.message)
    knowledge.refuse_unusable(Side.TARGET)


# ------------------------------------------------------------------ the word as records


@pytest.mark.parametrize(("authority", "state"), [(Side.SOURCE, State.SETUP), (Side.TARGET, State.COMMITTED)])
async def test_a_word_is_recorded_once_and_never_as_cloning(
    services: Services, authority: Side, state: State
) -> None:
    host = services.host()
    await stories.target_selected(host)
    knowledge = await know(services, host, None)
    record = decide_adoption(knowledge, authority, "op", knowledge.ledger, StoppedClock())
    assert isinstance(record, StateRecord)
    assert (record.state, record.authority, record.trigger) == (state, authority, ADOPTED)
    assert record.decision == knowledge.ledger.decision + 1
    entry = await services.wire.journal.append(record, knowledge.ledger.tail)
    again = decide_adoption(knowledge, authority, "op", await services.ledger(), StoppedClock())
    assert again == entry


async def test_nothing_may_be_decided_in_between(services: Services) -> None:
    host = services.host()
    await stories.source_selected(host)
    knowledge = await know(services, host, None)
    await host.move("vol1", Trigger.SELECT_TARGET)
    for decide in (
        lambda ledger: decide_adoption(knowledge, Side.SOURCE, "op", ledger, StoppedClock()),
        lambda ledger: decide_burial(knowledge, "op", ledger, StoppedClock()),
    ):
        with pytest.raises(Refusal) as caught:
            decide(await services.ledger())
        assert caught.value.code is Code.BUSY


@pytest.mark.parametrize("standing", [Standing.CLOSED, Standing.AWAY])
async def test_no_word_is_recorded_on_what_was_opened_meanwhile(
    services: Services, standing: Standing
) -> None:
    """To open again decides nothing, it sets the flag. The word was recorded over it, and the host cloned on.

    After a crash its target, never flushed, was opened as the one that holds everything.
    """
    host = services.host()
    await cleanly(stories.source_selected)(host)
    knowledge = await know(services, host, None, standing=standing)
    reply = await services.admit(host)
    assert reply.admitted[0].state is State.SOURCE_SELECTED
    ledger = await services.ledger()
    assert ledger.decision == knowledge.ledger.decision
    for decide in (
        lambda: decide_adoption(knowledge, Side.TARGET, "op", ledger, StoppedClock()),
        lambda: decide_burial(knowledge, "op", ledger, StoppedClock()),
    ):
        with pytest.raises(Refusal, match="recorded of 'vol1' meanwhile") as caught:
            decide()
        assert caught.value.code is Code.BUSY


async def test_what_the_word_itself_begins_with_is_nothing_new(services: Services) -> None:
    host = services.host()
    await cleanly(stories.source_selected)(host)
    knowledge = await know(services, host, None)
    origin = replace(host.origin("vol1", fault_of("op")), relies_on=knowledge.ledger.tail.digest)
    fault = FaultReport(
        operation_id=origin.operation_id,
        side=Side.TARGET,
        state=State.SOURCE_SELECTED,
        attempt=origin.attempt,
        operation="adopt",
        cause="adopted",
        detected_at=AT,
    )
    await services.wire.requests.request(
        record_subject("fault", "h1", "vol1"),
        RecordFaultRequest(origin=origin, fault=fault),
        StoredReply,
        timeout_s=5,
    )
    ledger = await services.ledger()
    assert ledger.tail != knowledge.ledger.tail
    assert isinstance(decide_adoption(knowledge, Side.SOURCE, "op", ledger, StoppedClock()), StateRecord)


async def test_a_damaged_chain_goes_on_by_the_word(services: Services, broker: MemoryBroker) -> None:
    host = services.host()
    await stories.source_selected(host)
    del broker.messages[2]
    knowledge = await know(services, host, None)
    with pytest.raises(Refusal, match="damaged"):
        decide_adoption(knowledge, Side.SOURCE, "op", knowledge.ledger, StoppedClock())
    mending = decide_mending(knowledge, Side.SOURCE, "op", knowledge.ledger, StoppedClock())
    assert isinstance(mending, RepairRecord)
    await services.wire.journal.append(mending, knowledge.ledger.tail)
    ledger = await services.ledger()
    assert ledger.broken is None
    assert isinstance(decide_adoption(knowledge, Side.SOURCE, "op", ledger, StoppedClock()), StateRecord)
    burial = decide_burial(knowledge, "op", ledger, StoppedClock())
    assert isinstance(burial, TombstoneRecord)
    assert burial.given_up


async def test_a_host_cannot_speak_as_the_operator(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    origin = replace(host.origin("vol1", "op"), decision=2)
    request = DecisionRequest(origin=origin, state=State.COMMITTED, authority=Side.TARGET, trigger=ADOPTED)
    with pytest.raises(Refusal, match="operator's word"):
        await services.wire.requests.request(
            decision_subject("h1", "vol1"), request, StoredReply, timeout_s=5
        )
