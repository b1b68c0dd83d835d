"""When in doubt a volume stays closed, says why, and names what would have admitted it. And who may ask at all."""

from dataclasses import replace

import pytest

from services.startup.owners import Owners
from services.startup.replay import Replay
from shared.bus.chain import Stored
from shared.bus.memory import AcceptedDurability, MemoryBroker
from shared.messages.admission import (
    AdmissionReply,
    AdmissionRequest,
    Closed,
    UnreadableWitness,
    admission_subject,
)
from shared.messages.recording import StoredReply
from shared.migration.devices import Side
from shared.migration.ledger import Ledger
from shared.migration.records import RepairRecord, TombstoneRecord
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag, State
from shared.migration.table import Trigger
from shared.migration.verdicts import Label
from tests.support import stories
from tests.support.scripted_host import AT, ScriptedHost, device
from tests.support.services import Services, StoppedClock
from tests.support.stories import Story, cleanly


def closed(reply: AdmissionReply) -> Closed:
    assert reply.admitted == ()
    assert reply.removed == ()
    assert "would admit it" in reply.closed[0].message
    assert reply.closed[0].code == Code.NOT_ADMITTED
    return reply.closed[0]


async def refusal(services: Services, host: ScriptedHost, run: int) -> Refusal:
    before = await services.kinds()
    with pytest.raises(Refusal) as caught:
        await services.admit(host, run=run)
    assert await services.kinds() == before
    return caught.value


# ------------------------------------------------------------------ who may ask


async def test_an_older_run_than_the_journal_knows_is_refused(services: Services) -> None:
    host = services.host(run=5)
    await stories.syncing(host)
    assert (await refusal(services, host, 4)).code is Code.STALE


async def test_an_older_run_than_a_witness_is_refused(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], run=7)
    assert (await refusal(services, host, 6)).code is Code.STALE


@pytest.mark.parametrize(("run", "code"), [(1, Code.STALE), (2, Code.BUSY)])
async def test_another_run_that_is_alive_keeps_the_host_away(
    services: Services, run: int, code: Code
) -> None:
    """Even under the same number: of two machines with one name, each may be in its first run."""
    host = services.host()
    await stories.idle(host)
    async with services.wire.endpoints.serve(host.description(), host.endpoints()):
        assert (await refusal(services, host, run)).code is code
    assert (await services.admit(host, run=3)).admitted


async def test_a_run_number_counted_from_an_old_copy_is_refused(services: Services) -> None:
    """A state directory from before the last run counts to the same number again, and its witnesses know nothing of it."""
    host = services.host()
    await cleanly(stories.source_selected)(host)
    before = dict(host.witnesses)
    reply = await services.admit(host, run=2)
    host.run = 2
    host.adopt(reply.admitted[0])
    assert (await services.admit(host, run=2, asked_before=True)).admitted
    host.witnesses = before
    assert (await refusal(services, host, 2)).code is Code.STALE


async def test_a_run_of_another_host_is_no_hindrance(services: Services) -> None:
    host, other = services.host(), services.host(name="h2", run=9)
    await stories.idle(host)
    async with services.wire.endpoints.serve(other.description(), other.endpoints()):
        assert (await services.admit(host)).admitted


async def test_a_host_without_anything_is_admitted(services: Services) -> None:
    assert await services.admit(services.host(), run=1) == AdmissionReply()


async def test_a_host_gets_its_own_migrations_only(services: Services) -> None:
    mine, theirs = services.host(), services.host(name="h2")
    await mine.set_up("vol1", "u1")
    await theirs.set_up("vol2", "u2")
    assert [each.migration for each in (await services.admit(mine)).admitted] == ["vol1"]


# ------------------------------------------------------------------ one by one


async def test_one_that_stays_closed_stops_no_other(services: Services) -> None:
    host = services.host()
    await host.set_up("vol1", "u1", "op1")
    await host.set_up("vol2", "u2", "op2")
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], host="elsewhere")
    reply = await services.admit(host)
    assert [each.migration for each in reply.admitted] == ["vol2"]
    assert [each.migration for each in reply.closed] == ["vol1"]


async def test_a_journal_that_cannot_be_reached_admits_nothing(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.idle(host)
    for served in broker.served:
        if served.instance.name == "st":
            served.bus.cut()
    assert (await refusal(services, host, 2)).code is Code.SERVICE_AWAY


async def test_an_owner_that_is_away_admits_nothing(services: Services, broker: MemoryBroker) -> None:
    host = services.host()
    await stories.syncing(host)
    (recording,) = (served for served in broker.served if served.instance.name == "fr")
    broker.served.remove(recording)
    assert (await refusal(services, host, 2)).code is Code.BUSY, (
        "it was asked, and part of it may be recorded"
    )
    broker.served.append(recording)
    assert (await services.admit(host, run=3)).admitted[0].label == Label.UNCLEAN


# ------------------------------------------------------------------ witness missing or not to be believed


@pytest.mark.parametrize(
    ("story", "label"),
    [
        (stories.idle, Label.IDLE),
        (stories.committed, Label.DONE),
        (stories.committed_with_the_flag_set, Label.DONE_FLAGGED),
    ],
)
@pytest.mark.parametrize("unreadable", [False, True])
async def test_what_cannot_have_cloned_needs_no_witness(
    services: Services, story: Story, label: Label, *, unreadable: bool
) -> None:
    host = services.host()
    await story(host)
    host.witnesses.clear()
    torn = (UnreadableWitness(migration="vol1", reason="torn"),) if unreadable else ()
    reply = await services.admit(host, unreadable=torn)
    assert reply.admitted[0].label == label


@pytest.mark.parametrize(
    "story",
    [
        stories.flagged_but_never_entered,
        stories.syncing,
        cleanly(stories.syncing),
        cleanly(stories.target_selected),
        cleanly(stories.source_lost),
        stories.back_in_setup_with_the_flag_set,
    ],
)
async def test_whatever_may_have_cloned_needs_its_witness(services: Services, story: Story) -> None:
    host = services.host()
    await story(host)
    host.witnesses.clear()
    before = await services.kinds()
    assert "no witness" in closed(await services.admit(host)).message
    torn = UnreadableWitness(migration="vol1", reason="its checksum does not match")
    assert "its checksum does not match" in closed(await services.admit(host, unreadable=[torn])).message
    assert await services.kinds() == before


async def test_a_damaged_journal_without_a_witness_stays_closed(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.committed(host)
    host.witnesses.clear()
    del broker.messages[2]
    assert "damaged" in closed(await services.admit(host)).message


async def test_a_torn_witness_of_nothing_recorded_stays_closed(services: Services) -> None:
    torn = UnreadableWitness(migration="vol1", reason="torn")
    assert "does not know it" in closed(await services.admit(services.host(), unreadable=[torn])).message


# ------------------------------------------------------------------ journal damaged or gone back


@pytest.mark.parametrize(
    "story", [stories.syncing, cleanly(stories.source_selected), stories.target_selected]
)
@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_a_journal_that_went_back_is_repaired_and_never_clean(
    services: Services, broker: MemoryBroker, story: Story, kept: int
) -> None:
    host = services.host()
    await story(host)
    witness = host.witnesses["vol1"]
    del broker.messages[kept:]
    reply = await services.admit(host)
    assert reply.admitted[0].label == Label.UNCLEAN
    ledger = await services.ledger()
    assert ledger.fault_count(Side.TARGET) > 0
    assert ledger.broken is None
    assert (ledger.state, ledger.flag, ledger.devices) == (State.SETUP, Flag.CLEAR, witness.devices)
    repair = ledger.entries[kept].record
    assert isinstance(repair, RepairRecord)
    assert (repair.state, repair.witness_digest) == (witness.state, witness.tail_digest)


async def test_a_hole_in_the_journal_is_repaired(services: Services, broker: MemoryBroker) -> None:
    host = services.host()
    await cleanly(stories.target_selected)(host)
    del broker.messages[2]
    assert (await services.ledger()).broken is not None
    assert (await services.admit(host)).admitted[0].label == Label.UNCLEAN
    assert (await services.ledger()).broken is None


async def test_a_fault_of_an_attempt_that_is_over_keeps_nothing_closed_where_its_record_is_lost(
    services: Services, broker: MemoryBroker
) -> None:
    """Cause: startup had it recorded anew, and the journal takes no fault of an earlier attempt."""
    host = services.host()
    await stories.syncing(host)
    await host.fail()
    fault = host.witnesses["vol1"].faults[-1]
    await host.move("vol1", Trigger.TARGET_FAULT)
    await host.clear_flag()
    await host.sync()
    await host.move("vol1", Trigger.ABORT)
    await host.clear_flag()
    witness = host.witnesses["vol1"]
    host.witnesses["vol1"] = replace(witness, faults=(fault,))
    del broker.messages[1:]
    reply = await services.admit(host)
    assert reply.closed == ()
    assert reply.admitted[0].state is State.SETUP
    assert (await services.ledger()).attempt == witness.attempt == fault.attempt + 1


async def test_a_lost_journal_of_a_commit_is_repaired_as_committed(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.committed(host)
    broker.messages.clear()
    reply = await services.admit(host)
    assert (reply.admitted[0].label, reply.admitted[0].state) == (Label.DONE_FLAGGED, State.COMMITTED)
    assert reply.admitted[0].authority is Side.TARGET


async def test_a_lost_journal_of_a_lost_source_goes_on_with_the_target(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.source_lost(host)
    broker.messages.clear()
    reply = await services.admit(host)
    assert reply.admitted[0].label == Label.ON_TARGET_FLAGGED
    assert reply.admitted[0].authority is Side.TARGET


async def test_a_setup_whose_journal_was_lost_goes_on(services: Services, broker: MemoryBroker) -> None:
    host = services.host()
    await stories.idle(host)
    broker.messages.clear()
    assert (await services.admit(host)).admitted[0].label == Label.IDLE_FLAGGED


async def test_repairing_twice_leaves_one_repair(services: Services, broker: MemoryBroker) -> None:
    host = services.host()
    await stories.target_selected(host)
    del broker.messages[2:]
    await services.admit(host, run=2)
    await services.admit(host, run=3)
    assert (await services.kinds()).count("repair") == 1


async def test_a_journal_that_went_back_after_a_repair_is_repaired_again(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.target_selected(host)
    del broker.messages[2:]
    reply = await services.admit(host, run=2)
    host.run = 2
    host.adopt(reply.admitted[0])
    del broker.messages[3:]
    assert (await services.admit(host, run=3)).admitted[0].label == Label.IDLE_FLAGGED
    assert (await services.kinds()).count("repair") == 2


async def test_a_journal_that_goes_back_while_it_is_judged_admits_nobody_until_it_is_asked_again(
    services: Services, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag is set anew, and gone before it is looked at: writes would be cloned under the clear that was there before."""
    host = services.host()
    await cleanly(stories.source_selected)(host)
    set_flag = Owners.set_flag

    async def set_in_vain(owners: Owners, ledger: Ledger) -> StoredReply:
        monkeypatch.undo()
        stored = await set_flag(owners, ledger)
        del broker.messages[-1:]
        return stored

    monkeypatch.setattr(Owners, "set_flag", set_in_vain)
    with pytest.raises(Refusal) as caught:
        await services.admit(host)
    assert caught.value.code is Code.BUSY
    reply = await services.admit(host)
    assert reply.admitted[0].label == Label.RESUME
    assert (await services.ledger()).flag is Flag.SET


async def test_flag_that_was_stored_in_vain_counts_only_once_it_is_durable(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that took it does not sync, which was found after it had: the next start went on with it all the same."""
    host = services.host()
    await cleanly(stories.source_selected)(host)
    answers: list[bool] = []

    async def require(_durability: AcceptedDurability) -> None:
        if answers and not answers.pop(0):
            raise Refusal(Code.JOURNAL_UNSYNCED, "it does not sync; one that does would admit it")

    monkeypatch.setattr(AcceptedDurability, "require", require)
    for run, answers[:] in ((2, [True, False]), (3, [False])):
        (closed,) = (await services.admit(host, run=run)).closed
        assert closed.code == Code.JOURNAL_UNSYNCED
        assert (await services.ledger()).flag is Flag.SET
    (admission,) = (await services.admit(host, run=4)).admitted
    assert admission.label == Label.RESUME
    assert (await services.kinds()).count(
        "flag-set"
    ) == 2  # the first run's, and the one that was stored in vain


@pytest.mark.parametrize(
    ("payload", "code"), [(b"junk", Code.JOURNAL_UNSOUND), (b'{"version": 99}', Code.NEWER_VERSION)]
)
async def test_a_record_that_cannot_be_read_keeps_it_closed(
    services: Services, broker: MemoryBroker, payload: bytes, code: Code
) -> None:
    host = services.host()
    await host.set_up("vol1", "u1", "op1")
    await host.set_up("vol2", "u2", "op2")
    broker.messages[0] = replace(broker.messages[0], stored=Stored(1, payload))
    reply = await services.admit(host)
    assert [each.migration for each in reply.admitted] == ["vol2"]
    assert [(each.migration, each.code) for each in reply.closed] == [("vol1", code)]


# ------------------------------------------------------------------ journal and witness contradict each other


async def test_a_witness_that_went_back_stays_closed(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    old = host.witnesses["vol1"]
    await host.move("vol1", Trigger.COPIED)
    host.witnesses["vol1"] = old
    message = closed(await services.admit(host)).message
    assert "records decision 3" in message
    assert "only at decision 2" in message


async def test_a_witness_from_before_the_last_opening_stays_closed(services: Services) -> None:
    """Cause: the flag that startup set for the last run counted as set in vain, for that witness knew nothing of the run.

    Failing, a target that missed the last writes of a run that crashed was served as in sync.
    """
    host = services.host()
    await cleanly(stories.source_selected)(host)
    old = host.witnesses["vol1"]
    reply = await services.admit(host, run=2)
    host.run = 2
    host.adopt(reply.admitted[0])
    host.witnesses["vol1"] = replace(old, opened_run=2)
    message = closed(await services.admit(host, run=3)).message
    assert "an old copy: of run 1, and run 2 has had the volume open" in message


async def test_a_witness_that_may_be_an_old_copy_proves_nothing(services: Services) -> None:
    """When the volume was last opened is not known: then a flag is never taken for set in vain."""
    host = services.host()
    await cleanly(stories.source_selected)(host)
    old = host.witnesses["vol1"]
    await services.admit(host, run=2)
    host.witnesses["vol1"] = replace(old, opened_run=None)
    assert (await services.admit(host, run=3)).admitted[0].label == Label.UNCLEAN


async def test_a_witness_that_does_not_know_of_the_clear_proves_nothing(services: Services) -> None:
    host = services.host()
    await stories.source_selected(host)
    old = host.witnesses["vol1"]
    await host.clear_flag()
    assert host.witnesses["vol1"] != old
    host.witnesses["vol1"] = old
    assert (await services.admit(host)).admitted[0].label == Label.UNCLEAN


async def test_a_witness_that_differs_stays_closed(services: Services) -> None:
    host = services.host()
    await cleanly(stories.source_selected)(host)
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], state=State.TARGET_SELECTED)
    message = closed(await services.admit(host)).message
    assert "source-selected" in message
    assert "target-selected" in message


async def test_a_witness_of_other_devices_stays_closed(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    devices = replace(host.witnesses["vol1"].devices, target=device("/c"))
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], devices=devices)
    assert "other devices" in closed(await services.admit(host)).message


async def test_a_witness_of_another_host_stays_closed(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], host="h9")
    assert "'h9'" in closed(await services.admit(host)).message


async def test_a_witness_of_another_migration_of_the_name_stays_closed(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], uuid="other")
    assert "UUID u1" in closed(await services.admit(host)).message


# ------------------------------------------------------------------ removal


async def test_what_was_cleaned_up_may_be_forgotten(services: Services) -> None:
    host = services.host()
    await stories.committed(host)
    await host.move("vol1", Trigger.CLEANUP)
    reply = await services.admit(host)
    assert (reply.admitted, reply.closed, reply.removed) == ((), (), ("vol1",))


@pytest.mark.parametrize("story", [stories.idle, stories.committed])
async def test_a_removal_that_the_journal_never_heard_of_is_recorded(
    services: Services, story: Story
) -> None:
    host = services.host()
    await story(host)
    host.reports = False
    await host.move("vol1", Trigger.CLEANUP)
    assert (await services.admit(host)).removed == ("vol1",)
    ledger = await services.ledger()
    assert not ledger.exists
    assert (await services.kinds())[-1] == "tombstone"


async def test_a_removal_is_recorded_on_a_journal_that_went_back(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.committed(host)
    host.reports = False
    await host.move("vol1", Trigger.CLEANUP)
    del broker.messages[1:]
    assert (await services.admit(host)).removed == ("vol1",)
    assert (await services.kinds())[1:] == ["repair", "tombstone"]


async def test_a_set_up_and_removal_that_the_journal_never_heard_of_leave_nothing(services: Services) -> None:
    host = services.host()
    host.reports = False
    await host.set_up()
    await host.move("vol1", Trigger.CLEANUP)
    assert (await services.admit(host)).removed == ("vol1",)
    assert await services.kinds() == []


async def test_a_name_that_is_used_again_is_another_migration(services: Services) -> None:
    host = services.host()
    await stories.committed(host)
    old = host.witnesses["vol1"]
    await host.move("vol1", Trigger.CLEANUP)
    await host.set_up("vol1", "u2", "op-again")
    assert (await services.admit(host)).admitted[0].uuid == "u2"
    host.witnesses["vol1"] = old
    assert (await services.admit(host, run=3)).admitted[0].uuid == "u2", (
        "that was never cloned, and needs no witness"
    )


async def test_an_old_copy_of_the_witness_of_an_earlier_migration_of_the_name_proves_nothing(
    services: Services,
) -> None:
    host = services.host()
    await stories.committed(host)
    old = host.witnesses["vol1"]
    await host.move("vol1", Trigger.CLEANUP)
    await host.set_up("vol1", "u2", "op-again")
    await host.enter("vol1", await host.set_flag("vol1", "op-flag-again"), "op-sync-again")
    host.witnesses["vol1"] = old
    (closed,) = (await services.admit(host)).closed
    assert "the witness of an earlier migration of that name alone" in closed.message


async def test_the_request_names_the_host_of_the_subject(services: Services) -> None:
    with pytest.raises(Refusal) as caught:
        await services.wire.requests.request(
            admission_subject("h1"), AdmissionRequest(host="h2", run=1), AdmissionReply, timeout_s=1
        )
    assert caught.value.code is Code.BAD_REQUEST


async def test_part_of_a_question_is_about_its_own_names_alone(services: Services) -> None:
    """The others' witnesses are in other parts; without them those would stay closed."""
    host = services.host()
    for name in ("vol1", "vol2", "vol3"):
        await host.set_up(name, f"u-{name}", f"op-{name}")
    del host.witnesses["vol3"]
    request = AdmissionRequest(host="h1", run=2, witnesses=(host.witnesses["vol1"],), names_before="vol2")
    rest = replace(
        request, witnesses=(host.witnesses["vol2"],), names_from="vol2", names_before="", asked_before=True
    )
    judged = [
        await services.wire.requests.request(admission_subject("h1"), part, AdmissionReply, timeout_s=1)
        for part in (request, rest)
    ]
    assert [[each.migration for each in reply.admitted] for reply in judged] == [["vol1"], ["vol2", "vol3"]]
    assert [reply.closed for reply in judged] == [(), ()]


async def test_migration_that_is_given_up_while_it_is_judged_is_judged_anew(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator does not wait for a host to start. Failing, startup calls it a defect of its own, and nothing is admitted."""
    host = services.host()
    await stories.back_in_setup_with_the_flag_set(host)
    clear_flag = Owners.clear_flag

    async def given_up_meanwhile(owners: Owners, ledger: Ledger) -> StoredReply:
        stored = await clear_flag(owners, ledger)
        now = await services.ledger()
        tombstone = TombstoneRecord(
            migration="vol1", uuid=str(now.uuid), attempt=now.attempt, host="h1", run=now.run, decision=now.decision + 1,
            operation_id="op-give-up", recorded_at=AT, state=State.SETUP,
        )  # fmt: skip
        await services.wire.journal.append(tombstone, now.tail)
        return stored

    monkeypatch.setattr(Owners, "clear_flag", given_up_meanwhile)
    with pytest.raises(Refusal, match="was removed while it was judged"):
        await services.admit(host)
    reply = await services.admit(host)
    assert (reply.admitted, reply.closed, reply.removed) == ((), (), ("vol1",))


async def test_flag_of_a_host_that_serves_by_now_is_not_cleared(services: Services) -> None:
    """A startup that was slow to judge cleared the flag under which another had the host clone meanwhile."""
    host = services.host()
    await stories.back_in_setup_with_the_flag_set(host)

    async def refuse() -> None:
        raise Refusal(Code.BUSY, "run 1 is alive")

    owners = Owners(services.wire.requests, StoppedClock(), host="h1", run=2, life="a question")
    replay = Replay(services.wire.journal, owners, host="h1", tried=(), given_away=(), refuse_others=refuse)
    with pytest.raises(Refusal, match="run 1 is alive"):
        await replay.with_witness(host.witnesses["vol1"])
    assert (await services.ledger()).flag is Flag.SET
