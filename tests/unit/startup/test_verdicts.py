"""Every row of the verdict table, through the service: what is admitted, as what, and what the journal says afterwards."""

from dataclasses import replace

import pytest

from shared.messages.admission import Admission
from shared.migration.devices import Side
from shared.migration.records import FaultRecord
from shared.migration.refusals import Code
from shared.migration.states import Flag, State
from shared.migration.verdicts import VERDICTS, Label
from tests.support import stories
from tests.support.services import Services
from tests.support.stories import Story, cleanly

# label, story, state, authority, flag afterwards, records that startup leaves, in order
ROWS: tuple[tuple[Label, Story, State, Side, Flag, list[str]], ...] = (
    (Label.IDLE, stories.idle, State.SETUP, Side.SOURCE, Flag.NEVER, ["state"]),
    (
        Label.IDLE_FLAGGED,
        stories.flagged_but_never_entered,
        State.SETUP,
        Side.SOURCE,
        Flag.CLEAR,
        ["flag-clear"],
    ),
    (
        Label.IDLE_FLAGGED,
        stories.back_in_setup_with_the_flag_set,
        State.SETUP,
        Side.SOURCE,
        Flag.CLEAR,
        ["state", "flag-clear"],
    ),
    (Label.DONE, stories.committed, State.COMMITTED, Side.TARGET, Flag.CLEAR, ["state"]),
    (
        Label.DONE_FLAGGED,
        stories.committed_with_the_flag_set,
        State.COMMITTED,
        Side.TARGET,
        Flag.CLEAR,
        ["flag-clear"],
    ),
    (Label.RESUME, cleanly(stories.syncing), State.SYNCING, Side.SOURCE, Flag.SET, ["flag-set"]),
    (
        Label.RESUME,
        cleanly(stories.source_selected),
        State.SOURCE_SELECTED,
        Side.SOURCE,
        Flag.SET,
        ["flag-set"],
    ),
    (
        Label.RESUME,
        cleanly(stories.target_selected),
        State.TARGET_SELECTED,
        Side.SOURCE,
        Flag.SET,
        ["flag-set"],
    ),
    (Label.FAULTED, stories.target_failed_unheard, State.SETUP, Side.SOURCE, Flag.CLEAR, ["fault", "state"]),
    (Label.UNCLEAN, stories.syncing, State.SETUP, Side.SOURCE, Flag.CLEAR, ["fault", "state", "flag-clear"]),
    (
        Label.UNCLEAN,
        stories.source_selected,
        State.SETUP,
        Side.SOURCE,
        Flag.CLEAR,
        ["fault", "state", "flag-clear"],
    ),
    (
        Label.UNCLEAN,
        stories.target_selected,
        State.SETUP,
        Side.SOURCE,
        Flag.CLEAR,
        ["fault", "state", "flag-clear"],
    ),
    (
        Label.ON_TARGET,
        cleanly(stories.source_lost),
        State.TARGET_SELECTED,
        Side.TARGET,
        Flag.SET,
        ["flag-set"],
    ),
    (
        Label.ON_TARGET_FLAGGED,
        stories.source_lost,
        State.TARGET_SELECTED,
        Side.TARGET,
        Flag.SET,
        ["state"],
    ),
)


def test_every_row_has_a_story() -> None:
    assert {row[0] for row in ROWS} | {Label.CONTRADICTION} == {verdict.label for verdict in VERDICTS}


async def admitted(services: Services, story: Story) -> Admission:
    host = services.host()
    await story(host)
    reply = await services.admit(host)
    assert reply.closed == ()
    return reply.admitted[0]


@pytest.mark.parametrize(
    ("label", "story", "state", "authority", "flag", "left"),
    ROWS,
    ids=[f"{row[0]}-{n}" for n, row in enumerate(ROWS)],
)
async def test_row(
    services: Services, label: Label, story: Story, state: State, authority: Side, flag: Flag, left: list[str]
) -> None:
    host = services.host()
    await story(host)
    before = await services.kinds()
    reply = await services.admit(host)
    assert (reply.closed, reply.removed) == ((), ())
    admission = reply.admitted[0]
    ledger = await services.ledger()
    assert (admission.label, admission.state, admission.authority) == (label, state, authority)
    assert (ledger.state, ledger.authority, ledger.flag, ledger.broken) == (state, authority, flag, None)
    assert (await services.kinds())[len(before) :] == left
    assert admission.tail_digest == ledger.tail.digest
    assert (admission.decision, admission.attempt) == (ledger.decision, ledger.attempt)
    flag_digest = ledger.flag_entry.digest if flag is Flag.SET and ledger.flag_entry else ""
    assert admission.flag_digest == flag_digest


async def test_an_unclean_stop_is_a_target_fault_of_its_own_kind(services: Services) -> None:
    admission = await admitted(services, stories.source_selected)
    assert admission.target_faults == 0, "what may be believed of the region map is as before"
    fault = (await services.ledger()).faults[0]
    assert isinstance(fault, FaultRecord)
    assert (fault.cause, fault.side, fault.operation) == ("unclean-shutdown", Side.TARGET, "shutdown")
    assert fault.state is State.SOURCE_SELECTED


async def test_fault_of_a_device_is_told_from_an_unclean_stop(services: Services) -> None:
    """Recorded after a clean stop it was the only one, passed for the unclean stop, and the region map was believed."""
    admission = await admitted(services, stories.target_failed_unheard)
    assert (admission.label, admission.target_faults) == (Label.FAULTED, 1)


async def test_state_and_authority_that_contradict_each_other_stay_closed(services: Services) -> None:
    host = services.host()
    await stories.source_selected(host)
    host.reports = False
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], authority=Side.TARGET, decision=4)
    before = await services.kinds()
    reply = await services.admit(host)
    assert reply.admitted == ()
    assert reply.closed[0].code == Code.NOT_ADMITTED
    assert "contradict" in reply.closed[0].message
    assert "would admit it" in reply.closed[0].message
    assert (await services.kinds())[len(before) :] == ["state"]  # caught up, and nothing else


async def test_a_second_start_without_application_io_comes_to_the_same(services: Services) -> None:
    """The flag that startup set anew, and that no witness relied on, does not make the stop unclean."""
    host = services.host()
    await cleanly(stories.source_selected)(host)
    first = await services.admit(host, run=2)
    again = await services.admit(host, run=2, asked_before=True)
    later = await services.admit(host, run=3)
    assert [reply.admitted[0].label for reply in (first, again, later)] == [Label.RESUME] * 3
    assert first.admitted == again.admitted
    assert later.admitted[0].flag_digest == first.admitted[0].flag_digest
    assert (await services.kinds()).count("flag-set") == 2


@pytest.mark.parametrize("story", [stories.source_selected, stories.source_lost])
async def test_a_start_that_was_relied_on_counts(services: Services, story: Story) -> None:
    host = services.host()
    await cleanly(story)(host)
    reply = await services.admit(host, run=2)
    host.run = 2
    host.adopt(reply.admitted[0])
    third = await services.admit(host, run=3)
    assert third.admitted[0].label == (
        Label.UNCLEAN if story is stories.source_selected else Label.ON_TARGET_FLAGGED
    )


async def test_a_clear_that_was_asked_for_and_not_stored_counts_as_unclean(services: Services) -> None:
    """The witness no longer names the flag, but it was written in the run that the flag was set for."""
    host = services.host()
    await cleanly(stories.source_selected)(host)
    reply = await services.admit(host, run=2)
    host.run = 2
    host.adopt(reply.admitted[0])
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], flag_digest="")
    assert (await services.admit(host, run=3)).admitted[0].label == Label.UNCLEAN


async def test_what_the_witness_has_and_the_journal_lacks_is_caught_up(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    host.reports = False
    await host.fail(side=Side.SOURCE)
    await host.fail()
    reply = await services.admit(host)
    ledger = await services.ledger()
    assert [fault.cause for fault in ledger.faults] == ["EIO", "EIO", "unclean-shutdown"]
    assert (reply.admitted[0].source_faults, reply.admitted[0].target_faults) == (1, 1)


async def test_a_setup_that_the_journal_never_heard_of_is_recorded(services: Services) -> None:
    host = services.host()
    host.reports = False
    await host.set_up()
    reply = await services.admit(host)
    assert reply.admitted[0].label == Label.IDLE
    assert (await services.ledger()).devices == host.witnesses["vol1"].devices


async def test_an_entry_that_the_journal_never_heard_of_is_unclean(services: Services) -> None:
    host = services.host()
    await host.set_up()
    flag = await host.set_flag()
    host.reports = False
    await host.enter("vol1", flag)
    reply = await services.admit(host)
    assert reply.admitted[0].label == Label.UNCLEAN
    assert reply.admitted[0].attempt == 1
    assert await services.kinds() == ["state", "flag-set", "state", "fault", "state", "flag-clear"]


async def test_a_flag_that_the_witness_names_counts_whatever_run_wrote_it(services: Services) -> None:
    host = services.host()
    await cleanly(stories.source_selected)(host)
    reply = await services.admit(host, run=5)
    flag_digest = reply.admitted[0].flag_digest
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], flag_digest=flag_digest)
    assert (await services.admit(host, run=6)).admitted[0].label == Label.UNCLEAN
