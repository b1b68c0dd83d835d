"""A state directory that was put back from before a run: known by what startup has recorded of that run, and by its life."""

from dataclasses import replace

import pytest

from shared.messages.admission import AdmissionReply, AdmissionRequest, Try, admission_subject
from shared.messages.recording import FaultReport, Origin, RecordFaultRequest, StoredReply, record_subject
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.verdicts import Label
from tests.support import stories
from tests.support.scripted_host import ScriptedHost
from tests.support.services import Services
from tests.support.stories import Story, cleanly


async def ask(
    services: Services,
    host: ScriptedHost,
    run: int,
    life: str,
    *,
    admitted_run: int | None,
    tried: tuple[Try, ...] = (),
    asked_before: bool = False,
) -> AdmissionReply:
    request = AdmissionRequest(
        host=host.name,
        run=run,
        life=life,
        asked_before=asked_before,
        witnesses=tuple(host.witnesses.values()),
        admitted_run=admitted_run,
        tried=(*tried, Try(run=run, life=life)),
    )
    return await services.wire.requests.request(
        admission_subject(host.name), request, AdmissionReply, timeout_s=10
    )


async def test_run_that_the_directory_does_not_know_was_not_its_own(services: Services) -> None:
    """Run 2 was admitted, and cloned. Then the directory of run 1 comes back, and is started until its number is past."""
    host = services.host()
    await cleanly(stories.source_selected)(host)
    await ask(services, host, 2, "of run 2", admitted_run=1)
    tried = tuple(Try(run=run, life=f"start {run}") for run in (2, 3))
    before = await services.kinds()
    with pytest.raises(Refusal, match="run 2 has been there") as refusal:
        await ask(services, host, 4, "start 4", admitted_run=1, tried=tried)
    assert refusal.value.code is Code.STALE
    assert await services.kinds() == before


async def test_run_that_died_before_it_opened_anything_is_known_by_its_life(services: Services) -> None:
    host = services.host()
    await cleanly(stories.source_selected)(host)
    first = await ask(services, host, 2, "of run 2", admitted_run=1)
    tried = (Try(run=2, life="of run 2"),)
    second = await ask(services, host, 3, "of run 3", admitted_run=1, tried=tried)
    assert [reply.admitted[0].label for reply in (first, second)] == [Label.RESUME] * 2
    # And what run 3 did is known to no directory of before it, though it found the flag of run 2 set.
    with pytest.raises(Refusal, match="run 3 has been there"):
        await ask(services, host, 4, "start 4", admitted_run=1, tried=tried)


@pytest.mark.parametrize(
    ("story", "has_witness"),
    [
        (stories.idle, True),
        (stories.idle, False),
        (stories.committed, True),
        (stories.committed, False),
        (stories.source_lost, True),
    ],
)
async def test_opening_is_on_record_once_whatever_the_verdict(
    services: Services, story: Story, has_witness: bool
) -> None:
    """Nothing else of the run is recorded. Failing, nobody knows of it: neither the next start nor an earlier run."""
    host = services.host()
    await story(host)
    if not has_witness:
        host.witnesses.clear()
    before = await services.kinds()
    first = await ask(services, host, 2, "of run 2", admitted_run=1)
    again = await ask(services, host, 2, "of run 2", admitted_run=2, asked_before=True)
    assert (await services.kinds())[len(before) :] == ["state"]
    assert first.admitted == again.admitted
    ledger = await services.ledger()
    assert (ledger.host, ledger.run, ledger.entries[-1].record.life) == (host.name, 2, "of run 2")
    with pytest.raises(Refusal, match="run 2 has been there"):
        await ask(services, host, 3, "start 3", admitted_run=1)


@pytest.mark.parametrize("life", ["", "of run 2"])
async def test_directory_of_version_0_1_0_is_admitted(services: Services, life: str) -> None:
    """It knows nothing of runs and openings. Where its run 2 did not come to open the volume, a record of it is left."""
    host = services.host()
    await cleanly(stories.source_selected)(host)
    forget_opening(host)
    await ask(services, host, 2, life, admitted_run=None)
    tried = (Try(run=2, life=life),) if life else ()
    reply = await ask(services, host, 3, "of run 3", admitted_run=None, tried=tried)
    assert (reply.closed, reply.admitted[0].state) == ((), State.SETUP), "taken for unclean, as ever"


@pytest.mark.parametrize("story", [stories.idle, cleanly(stories.source_selected), stories.target_selected])
async def test_witness_of_before_a_run_on_record_is_an_old_copy_where_the_openings_are_lost(
    services: Services, story: Story
) -> None:
    """Cause: when the volume was opened last was not known, and nothing else was asked. Failing, its old map was believed."""
    host = services.host()
    await story(host)
    host.witnesses["vol1"] = old = replace(host.witnesses["vol1"], has_map=True)
    await ask(services, host, 2, "of run 2", admitted_run=1)
    forget_opening(host)
    tried: tuple[Try, ...] = ()
    for run in (3, 4):
        reply = await ask(services, host, run, f"start {run}", admitted_run=None, tried=tried)
        (closed,) = reply.closed
        assert "its witness is an old copy: of run 1, and run 2 has had the volume open" in closed.message
        tried = (*tried, Try(run=run, life=f"start {run}"))
    # Also once the directory knows a run again in which others were admitted.
    assert (await ask(services, host, 5, "start 5", admitted_run=4)).admitted == ()
    host.witnesses["vol1"] = replace(old, run=2, opened_run=None)
    assert (await ask(services, host, 6, "start 6", admitted_run=5)).closed == ()


def forget_opening(host: ScriptedHost) -> None:
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], opened_run=None)


async def test_witness_in_whose_place_an_operators_word_stands_is_not_believed(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    (believed,) = (await ask(services, host, 2, "of run 2", admitted_run=1)).admitted
    host.witnesses.clear()
    (not_believed,) = (await ask(services, host, 3, "of run 3", admitted_run=2)).admitted
    assert (believed.is_witness_believed, not_believed.is_witness_believed) == (True, False)


async def test_word_that_an_operator_began_to_give_makes_the_right_directory_no_old_copy(
    services: Services,
) -> None:
    """A start died in its admission, and an `adopt` that got no further than the fault left a record of that run.

    It bore no life: every later start was refused as an old copy, with all volumes of the host.
    """
    host = services.host()
    await cleanly(stories.source_selected)(host)
    await ask(services, host, 2, "of run 2", admitted_run=1)
    ledger = await services.ledger()
    origin = Origin(
        migration=ledger.migration,
        uuid=str(ledger.uuid),
        attempt=ledger.attempt,
        host=ledger.host,
        run=ledger.run,
        decision=ledger.decision,
        operation_id="adopt:fault",
        relies_on=ledger.tail.digest,
        life=ledger.life,
    )
    fault = FaultReport(
        operation_id="adopt:fault",
        side=Side.TARGET,
        state=State.SOURCE_SELECTED,
        attempt=ledger.attempt,
        operation="adopt",
        cause="adopted",
        detected_at="2026-01-31T12:00:00.000000Z",
    )
    await services.wire.requests.request(
        record_subject("fault", host.name, ledger.migration),
        RecordFaultRequest(origin=origin, fault=fault),
        StoredReply,
        timeout_s=5,
    )
    assert (await services.ledger()).life == "of run 2"
    reply = await ask(services, host, 3, "of run 3", admitted_run=1, tried=(Try(run=2, life="of run 2"),))
    assert reply.admitted[0].state is State.SETUP
