"""What `query`, `list` and `faults` tell: the journal's word joined with the host's, and the host's absence no error."""

import asyncio
from dataclasses import replace

import orjson
import pytest

from services.state_control import hosts
from services.state_control.picture import Picture
from services.state_control.reporting import status_of
from shared.bus.chain import Stored
from shared.bus.memory import MemoryBroker
from shared.messages.control import (
    FAULTS_SUBJECT,
    LIST_SUBJECT,
    FaultsReply,
    ListReply,
    PlainRequest,
    control_subject,
)
from shared.messages.host import ClosedView
from shared.messages.standing import gone_back
from shared.messages.status import JournalWait, MigrationStatus
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Trigger
from tests.support import stories
from tests.support.records import adopted_by
from tests.support.scripted_host import ScriptedHost
from tests.support.services import Services


async def query(services: Services, name: str = "vol1") -> MigrationStatus:
    return await services.wire.requests.request(
        control_subject("query", name), PlainRequest(), MigrationStatus, timeout_s=10
    )


async def listed(services: Services) -> ListReply:
    return await services.wire.requests.request(LIST_SUBJECT, PlainRequest(), ListReply, timeout_s=10)


async def faults(services: Services, subject: str = FAULTS_SUBJECT) -> FaultsReply:
    return await services.wire.requests.request(subject, PlainRequest(), FaultsReply, timeout_s=10)


def up(services: Services, host: ScriptedHost):  # type: ignore[no-untyped-def] # noqa: ANN201
    return services.wire.endpoints.serve(host.description(), host.endpoints())


async def test_a_host_that_is_up_adds_what_it_sees(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    async with up(services, host):
        status = await query(services)
    assert (status.state, status.attempt, status.error_flag, status.host) == (State.SYNCING, 1, True, "h1")
    assert (status.host_answers, status.host_error, status.journal_pending) == (True, None, False)
    assert (status.source, status.target) == ("/a", "/b")
    assert (status.synced_percent, status.synced_bytes) == (50.0, 1 << 19)
    assert status.export_uri == "nbd+unix:///vol1"
    assert set(status.allowed) == {"abort"}


async def test_what_a_host_has_yet_to_report_is_unknown_and_not_lost(services: Services) -> None:
    """Cause: any volume that a host has and the journal lacks was called a journal gone back; so was one just set up."""
    host = services.host()
    host.reports = False
    await host.set_up()
    async with up(services, host):
        with pytest.raises(Refusal) as refused:
            await query(services)
        assert refused.value.code is Code.UNKNOWN_MIGRATION
        assert (await listed(services)).warnings == ()
        host.reports = True
        await host.report("vol1")
        assert (await query(services)).state is State.SETUP


async def test_a_host_that_is_away_leaves_the_journals_word(services: Services) -> None:
    await stories.source_selected(services.host())
    status = await query(services)
    assert (status.state, status.error_flag, status.size_bytes) == (State.SOURCE_SELECTED, True, 1 << 20)
    assert (status.host_answers, status.synced_bytes, status.routing) == (False, None, None)
    assert status.allowed == (), "none could be carried out"
    assert status.host_error is not None
    assert "away" in status.host_error


async def test_what_is_known_of_a_host_that_is_away_is_as_old_as_its_last_record(services: Services) -> None:
    await stories.source_selected(services.host())
    ledger = await services.ledger()
    away = Picture(ledger=ledger, run=1, host_error="It is away.")
    assert status_of(away, warnings=(), now="later").as_of == ledger.entries[-1].record.recorded_at
    closed = replace(away, host_error=None)
    assert status_of(closed, warnings=(), now="later").as_of == "later", "it was asked now"


async def test_a_host_that_hangs_does_not_hold_the_answer_up(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "CHECK_TIMEOUT_S", 0.1)
    host = services.host()
    await stories.syncing(host)
    host.hanging = asyncio.Event()
    async with up(services, host):
        assert not (await query(services)).host_answers
        host.hanging.set()


async def test_where_the_host_is_ahead_of_the_journal_it_is_right(services: Services) -> None:
    host = services.host()
    await stories.source_selected(host)
    host.reports = False
    await host.move("vol1", Trigger.SELECT_TARGET)
    async with up(services, host):
        status = await query(services)
    assert (status.state, status.journal_pending) == (State.TARGET_SELECTED, True)


async def test_where_the_journal_is_ahead_of_the_host_it_is_right(services: Services) -> None:
    host = services.host()
    await stories.source_selected(host)
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], state=State.SYNCING, decision=2)
    async with up(services, host):
        assert (await query(services)).state is State.SOURCE_SELECTED


async def test_a_migration_of_the_same_name_and_another_uuid_is_not_its_view(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], uuid="other", decision=9)
    async with up(services, host):
        status = await query(services)
    assert status.synced_bytes is None
    assert status.host_error is not None


async def test_faults_of_the_attempt_are_told(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    await host.fail(side=Side.SOURCE)
    status = await query(services)
    assert [(fault.side, fault.cause, fault.offset) for fault in status.faults] == [
        (Side.SOURCE, "EIO", 4096)
    ]
    assert status.faults[0].recorded_at is not None


async def test_faults_of_earlier_attempts_are_only_in_the_log(services: Services) -> None:
    host = services.host()
    await stories.syncing(host)
    await host.fail()
    await host.move("vol1", Trigger.TARGET_FAULT)
    host.witnesses["vol1"] = replace(host.witnesses["vol1"], faults=())
    await host.sync()
    assert (await query(services)).faults == ()
    assert [
        fault.attempt for fault in (await faults(services, control_subject("faults", "vol1"))).faults
    ] == [1]
    assert len((await faults(services)).faults) == 1


async def test_what_does_not_exist_is_unknown(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    await host.move("vol1", Trigger.CLEANUP)
    for ask in (query(services), faults(services, control_subject("faults", "vol1"))):
        with pytest.raises(Refusal) as caught:
            await ask
        assert caught.value.code is Code.UNKNOWN_MIGRATION
    assert await listed(services) == ListReply()


async def test_everything_that_exists_is_listed_and_each_host_asked_once(services: Services) -> None:
    first, second = services.host(), services.host(name="h2")
    for number in range(12):
        await first.set_up(f"a{number:02}", f"u{number}", f"op{number}")
    await second.set_up("b", "u-b", "op-b")
    async with up(services, first):
        reply = await listed(services)
    assert [status.name for status in reply.migrations] == [*(f"a{number:02}" for number in range(12)), "b"]
    assert [status.host_answers for status in reply.migrations] == [True] * 12 + [False]
    assert first.asked == ["status"]


async def test_one_whose_records_cannot_be_read_hides_no_other(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await host.set_up("vol1", "u1", "op1")
    await host.set_up("vol2", "u2", "op2")
    broker.messages[0] = replace(broker.messages[0], stored=Stored(1, b"junk"))
    reply = await listed(services)
    assert [status.name for status in reply.migrations] == ["vol2"]
    assert "vol1" in reply.warnings[0]


async def test_a_damaged_journal_is_warned_of(services: Services, broker: MemoryBroker) -> None:
    await stories.source_selected(services.host())
    del broker.messages[2]
    status = await query(services)
    assert status.state is State.SETUP  # the last that is proved
    assert "damaged" in status.warnings[0]


# ------------------------------------------------------------------ a journal that its hosts cannot rely on


def appended(broker: MemoryBroker, name: str, **changes: object) -> None:
    """A copy of the last record of a migration, changed."""
    last = next(each for each in reversed(broker.messages) if each.subject.split(".")[2] == name)
    record = orjson.loads(last.stored.payload) | changes
    stored = Stored(last.stored.sequence + 1000, orjson.dumps(record))
    broker.messages.append(replace(last, stored=stored))


async def test_open_volumes_that_the_journal_has_lost_are_unlisted(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.syncing(host)
    async with up(services, host):
        assert (await listed(services)).unlisted == ()
        broker.messages.clear()
        reply = await listed(services)
    (lost,) = reply.unlisted
    assert reply.migrations == ()
    assert (lost.name, lost.host, lost.state) == ("vol1", "h1", State.SYNCING)
    assert lost.journal_condition is JournalCondition.UNKNOWN
    assert lost.view is not None
    assert reply.warnings == lost.warnings


async def test_volume_whose_first_record_the_journal_does_not_take_is_unlisted(services: Services) -> None:
    """Cause: it was served, and in no answer, for as long as something kept its first record out of the journal."""
    host = services.host()
    host.reports = False
    await host.set_up()
    host.journal_wait = JournalWait(what="decision 1 (setup)", why="", since="2026-01-31T12:00:00Z")
    async with up(services, host):
        assert await listed(services) == ListReply(), "a moment later it is recorded"
        host.journal_wait = replace(host.journal_wait, why="The disk is full.")
        reply = await listed(services)
        host.journal_wait, host.reports = None, True
        await host.report("vol1")
        recorded = await listed(services)
    (untaken,) = reply.unlisted
    assert reply.migrations == ()
    assert (untaken.name, untaken.host, untaken.state) == ("vol1", "h1", State.SETUP)
    assert untaken.journal_condition is JournalCondition.PENDING
    assert untaken.warnings == reply.warnings
    assert untaken.warnings[0].startswith("Host 'h1' has set up 'vol1', and the journal has yet to be told")
    assert untaken.warnings[0].endswith("since 2026-01-31T12:00:00Z: The disk is full.")
    assert ([each.name for each in recorded.migrations], recorded.unlisted) == (["vol1"], ())


async def test_volume_whose_name_the_journal_gave_to_another_is_not_to_be_restarted(
    services: Services, broker: MemoryBroker
) -> None:
    """Its start would keep it closed, unlike that of one of which the journal knows nothing."""
    host, other = services.host(), services.host(name="h2")
    await stories.syncing(host)
    broker.messages.clear()
    await other.set_up("vol1", uuid="u2")
    async with up(services, host), up(services, other):
        reply = await listed(services)
    assert [each.host for each in reply.migrations] == ["h2"]
    (unlisted,) = reply.unlisted
    assert (unlisted.host, unlisted.journal_condition) == ("h1", JournalCondition.ANOTHER)
    assert "Do not restart host 'h1'" in unlisted.warnings[0]
    assert "`cutover cleanup vol1` ends the other one" in unlisted.warnings[0]


async def test_volume_that_was_given_to_another_host_and_is_still_open_is_told_of(services: Services) -> None:
    """Cause: both hosts wrote to the devices, and no answer said so."""
    host, other = services.host(), services.host(name="h2")
    await stories.syncing(host)
    ledger = await services.ledger()
    await services.wire.journal.append(adopted_by(other.name, ledger), ledger.tail)
    async with up(services, host), up(services, other):
        reply = await listed(services)
    assert [each.host for each in reply.migrations] == ["h2"]
    (unlisted,) = reply.unlisted
    assert (unlisted.host, unlisted.journal_condition) == ("h1", JournalCondition.GIVEN_AWAY)
    assert "Host 'h1' still has 'vol1' open, and the journal gives it to host 'h2'" in unlisted.warnings[0]
    assert reply.warnings == unlisted.warnings


async def test_volume_that_a_later_run_of_its_host_has_too_is_told_of(services: Services) -> None:
    host = services.host()
    await stories.idle(host)
    await services.admit(host, run=2)
    async with up(services, host):  # run 1, which was cut off meanwhile
        reply = await listed(services)
    (status,) = reply.migrations
    assert status.journal_condition is JournalCondition.LATER_RUN
    assert "Run 1 of host 'h1' still has 'vol1' open, and the journal gives it to run 2" in status.warnings[0]
    assert status.allowed == ()


@pytest.mark.parametrize(
    ("uuid", "told"), [("u1", [("h1", JournalCondition.ANOTHER)]), ("u2", []), (None, [])]
)
async def test_closed_volume_whose_name_the_journal_gave_to_another_is_told_of(
    services: Services, uuid: str | None, told: list[tuple[str, JournalCondition]]
) -> None:
    """Cause: it was in no answer, although only its host could say what its devices hold. One that was taken over is at rest."""
    host, other = services.host(), services.host(name="h2")
    host.closed = (ClosedView(name="vol1", uuid=uuid, code=Code.NOT_ADMITTED, message="Not admitted."),)
    await other.set_up("vol1", uuid="u2")
    async with up(services, host), up(services, other):
        reply = await listed(services)
    assert [each.host for each in reply.migrations] == ["h2"]
    assert [(each.host, each.journal_condition) for each in reply.unlisted] == told
    assert all("keeps closed: Not admitted." in each.warnings[0] for each in reply.unlisted)


async def test_record_that_cannot_be_read_hides_neither_the_host_s_word_nor_the_others(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.syncing(host)
    await host.set_up("vol2")
    async with up(services, host):
        appended(broker, "vol1", version=99)
        reply = await listed(services)
    assert [each.name for each in reply.migrations] == ["vol2"]
    (unreadable,) = reply.unlisted
    assert unreadable.journal_condition is JournalCondition.NEWER_VERSION
    assert (unreadable.host_answers, unreadable.host_error) == (True, None), "it is open"
    assert "version 99" in unreadable.warnings[0]
    (away,) = (await listed(services)).unlisted
    assert (away.host, away.host_answers, away.state) == ("", False, None), "nobody has it"


async def test_journal_that_has_gone_back_allows_only_the_way_out(
    services: Services, broker: MemoryBroker
) -> None:
    host = services.host()
    await stories.syncing(host)
    kept = list(broker.messages)
    await host.move("vol1", Trigger.COPIED)
    broker.messages[:] = kept
    async with up(services, host):
        status = await query(services)
    assert status.journal_condition is JournalCondition.GONE_BACK
    assert status.allowed == ("abort",)


async def test_what_the_host_says_as_the_journal_shows_it_is_said_once(services: Services) -> None:
    """Cause: both found that the journal had gone back, and `query` had the same sentence two times in a row."""
    await stories.syncing(services.host())
    sentence = gone_back("vol1", "host 'h1'").message
    told = Picture(
        ledger=await services.ledger(), run=1, has_gone_back=True, host_warnings=(sentence, "Another.")
    )
    assert status_of(told, warnings=("It is away.",), now="now").warnings == (
        sentence,
        "It is away.",
        "Another.",
    )
