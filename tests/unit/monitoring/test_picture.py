"""The picture: what counts when several tell of one migration, what browsers are owed, and what is bounded."""

from dataclasses import replace
from datetime import timedelta

import orjson
import pytest

from services.monitoring.frames import frame
from services.monitoring.picture import EVENTS_MAX, GONE_MAX, HISTORIES_MAX, HOST_KEPT_S, Link, Picture
from shared.bus.interface import ServiceInstance
from shared.messages.control import ListReply
from shared.messages.host import HOST_SERVICE_NAME
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.records import fault_record, flag_clear, flag_set, state_record, tombstone
from tests.support.staged import BEGAN, World, fault_of, status, text, view

NOW = BEGAN.timestamp()


def told(count: int = 1) -> tuple[Picture, World]:
    picture = Picture("e")
    world = World(picture, count, BEGAN)
    world.tell()
    return picture, world


def test_later_decision_counts_whoever_tells_it_last() -> None:
    picture = Picture("e")
    record = state_record(state=State.SOURCE_SELECTED, trigger="copied", decision=3, uuid="uuid-of-vol1")
    picture.told_record(record)
    picture.told_progress(view("vol1", State.SYNCING, decision=2), NOW)
    assert frame(picture, None, "", NOW)["rows"][0]["state"] is State.SOURCE_SELECTED
    picture.told_progress(view("vol1", State.TARGET_SELECTED, decision=4), NOW)
    picture.told_record(record)
    assert frame(picture, None, "", NOW)["rows"][0]["state"] is State.TARGET_SELECTED


TROUBLE = "vol1: the application gets errors: 1 request failed, at T: source read at 0: EIO."


def test_application_that_gets_errors_wants_attention_and_is_told_once() -> None:
    """The page was green while every request failed."""
    picture = Picture("e")
    picture.told_status(status(view(), warnings=("writes wait", TROUBLE), application_trouble=TROUBLE), NOW)
    assert frame(picture, None, "", NOW)["rows"][0]["errors"], "state_control alone has told"
    later = TROUBLE.replace("1 request", "2 requests")
    picture.told_progress(view(application_trouble=later), NOW + 1)
    told = frame(picture, None, "vol1", NOW, is_new=True)
    assert told["rows"][0]["errors"] is True
    assert told["detail"]["warnings"] == [later, "writes wait"]
    picture.told_progress(view(), NOW + 2)
    told = frame(picture, None, "vol1", NOW, is_new=True)
    assert told["rows"][0]["errors"] is False
    assert told["detail"]["warnings"] == ["writes wait"]


def test_application_of_a_host_that_is_away_is_not_told_of() -> None:
    picture = Picture("e")
    picture.told_progress(view(application_trouble=TROUBLE), NOW)
    picture.told_status(status(view(), host_error="its host is away", host_answers=False), NOW + 1)
    assert frame(picture, None, "", NOW)["rows"][0]["errors"] is False


def test_flag_follows_the_journal_at_once() -> None:
    picture, _ = told()
    uuid = "uuid-of-vol1"
    picture.told_record(flag_clear(uuid=uuid))
    assert not picture.migrations["vol1"].is_flagged
    picture.told_record(flag_set(uuid=uuid))
    assert picture.migrations["vol1"].is_flagged


def test_new_migration_under_an_old_name_inherits_nothing() -> None:
    picture, _ = told()
    picture.told_record(fault_record(uuid="uuid-of-vol1"))
    assert picture.migrations["vol1"].faults
    picture.told_progress(view("vol1", State.SETUP, uuid="another"), NOW)
    known = picture.migrations["vol1"]
    assert (known.faults, known.history, known.is_flagged) == ([], None, False)


def test_tombstone_removes_a_migration_and_only_its_own() -> None:
    picture, _ = told()
    picture.told_record(tombstone(uuid="an-earlier-one"))
    assert "vol1" in picture.migrations
    picture.told_record(tombstone(uuid="uuid-of-vol1"))
    assert "vol1" not in picture.migrations
    assert "vol1" in frame(picture, 1, "", NOW)["gone"]


def test_migration_that_is_not_listed_is_gone_unless_it_was_heard_of_since() -> None:
    picture, _ = told()
    picture.told_list(ListReply(), asked_at=NOW - 1, now=NOW)
    assert "vol1" in picture.migrations  # heard of after the question was asked
    picture.told_list(ListReply(), asked_at=NOW + 1, now=NOW + 1)
    assert "vol1" not in picture.migrations


def test_migration_of_a_host_that_does_not_answer_is_not_taken_for_gone() -> None:
    """The journal may have lost it, and only its host could tell."""
    picture, _ = told()
    picture.told_instances({HOST_SERVICE_NAME: ()}, NOW + 1)
    picture.told_list(ListReply(), asked_at=NOW + 2, now=NOW + 2)
    assert "vol1" in picture.migrations
    picture.told_list(ListReply(), asked_at=NOW + 2, now=NOW + HOST_KEPT_S + 2)
    assert "vol1" not in picture.migrations


def test_migration_whose_records_cannot_be_read_stays() -> None:
    picture, _ = told()
    reply = ListReply(warnings=("vol1: The journal holds a record of version 2.",))
    picture.told_list(reply, asked_at=NOW + 1, now=NOW + 1)
    assert "vol1" in picture.migrations


def test_closed_volume_is_told_as_trouble_until_its_host_speaks() -> None:
    picture = Picture("e")
    picture.told_status(status(view(), host_error="its witness is lost"), NOW)
    assert frame(picture, None, "", NOW)["rows"][0]["trouble"] == "its witness is lost"
    picture.told_progress(view(), NOW + 1)
    assert frame(picture, None, "", NOW)["rows"][0]["trouble"] == ""


def test_rates_are_differences_over_the_times_in_the_messages() -> None:
    picture = Picture("e")
    picture.told_progress(view(application_reads=1000, application_write_bytes=0), NOW)
    picture.told_progress(
        view(application_reads=1500, application_write_bytes=8192, at=BEGAN + timedelta(seconds=2)), NOW
    )
    point = picture.migrations["vol1"].series.last
    assert point is not None
    assert (point.reads_per_s, point.write_bytes_per_s) == (250.0, 4096.0)


@pytest.mark.parametrize(
    "then", [{"run": 4, "application_reads": 5000}, {"application_reads": 5}, {"uuid": "another"}]
)
def test_counters_that_began_anew_make_no_rate(then: dict[str, object]) -> None:
    picture = Picture("e")
    picture.told_progress(view(application_reads=1000), NOW)
    after = replace(view(application_reads=1000, at=BEGAN + timedelta(seconds=1)), **then)  # type: ignore[arg-type]
    picture.told_progress(after, NOW)
    assert picture.migrations["vol1"].series.last is None


VM = ServiceInstance(name="", instance_id="1", metadata={"host": "vm", "run": "3"})


def reads_of(picture: Picture) -> float | None:
    """As the page shows them."""
    row = frame(picture, None, "", NOW)["rows"][0]
    assert isinstance(row["reads"], float | None)
    return row["reads"]


def test_silent_host_that_can_be_heard_means_that_nothing_moves() -> None:
    picture, world = told()
    world.go_on()
    heard = picture.migrations["vol1"].view_heard
    picture.passed(heard + 1)
    assert reads_of(picture)
    picture.passed(heard + 3.5)
    assert reads_of(picture), "nobody has heard the host since"
    picture.told_instances({HOST_SERVICE_NAME: (VM,)}, heard + 4)
    version = picture.version
    picture.passed(heard + 5)
    assert reads_of(picture) == 0
    assert picture.version > version
    version = picture.version
    picture.passed(heard + 6)
    assert picture.version == version  # and is told once


@pytest.mark.parametrize("is_nats_away", [True, False])
def test_silence_of_a_host_that_cannot_be_heard_is_no_rest(*, is_nats_away: bool) -> None:
    """Cause: three seconds without a word were taken for rest. Failing, the page tells 0 IOPS of applications that go on."""
    picture, world = told()
    world.go_on()
    heard = picture.migrations["vol1"].view_heard
    if is_nats_away:
        picture.told_link(Link(is_connected=False, since=heard))
    else:
        picture.told_instances({HOST_SERVICE_NAME: ()}, heard + 3)
    picture.passed(heard + 5)
    row = frame(picture, None, "", NOW)["rows"][0]
    assert (row["reads"], row["writes"], row["rate"], row["eta"]) == (None, None, None, None)
    detail = frame(picture, None, "vol1", NOW, is_new=True)["detail"]
    assert detail["points"][-1][1:] == [None] * 5
    assert (detail["read_bytes"], detail["read_latency"]) == (None, None)
    version = picture.version
    picture.passed(heard + 6)
    assert picture.version == version  # and is told once
    picture.told_link(Link(is_connected=True, since=heard + 60))
    picture.told_instances({HOST_SERVICE_NAME: (VM,)}, heard + 61)
    picture.passed(heard + 61)
    assert reads_of(picture) is None, "it has had no time yet to tell what moves"
    world.go_on(61.5)
    assert reads_of(picture)
    assert 0 not in [point[2] for point in frame(picture, None, "vol1", NOW, is_new=True)["detail"]["points"]]


def test_what_was_told_once_has_no_rates_before_its_host_was_silent() -> None:
    picture, _ = told()
    assert reads_of(picture) is None
    picture.told_instances({HOST_SERVICE_NAME: (VM,)}, NOW + 4)
    picture.passed(NOW + 5)
    assert reads_of(picture) == 0


def test_fault_that_is_pending_and_then_recorded_is_one_fault() -> None:
    picture = Picture("e")
    fault = replace(fault_of(view()), recorded_at=None)
    picture.told_progress(view(pending_faults=(fault,)), NOW)
    recorded = fault_record(
        uuid="uuid-of-vol1", offset=fault.offset, length=fault.length, detected_at=fault.detected_at
    )
    picture.told_record(recorded)
    assert [each.recorded_at for each in picture.migrations["vol1"].faults] == [recorded.recorded_at]


def test_history_goes_on_with_new_records() -> None:
    picture, _ = told()
    known = picture.migrations["vol1"]
    assert known.history is not None
    count = known.history.last_index
    record = state_record(
        state=State.SOURCE_SELECTED, trigger="copied", decision=9, uuid=known.uuid, index=count + 1,
        recorded_at=text(BEGAN),
    )  # fmt: skip
    picture.told_record(record)
    assert known.history.stories[-1].title == "Copied"
    assert "It had been in syncing for" in known.history.stories[-1].text


def test_history_with_a_gap_is_read_anew() -> None:
    picture, _ = told()
    assert not picture.wants_history("vol1")
    picture.told_record(flag_set(uuid="uuid-of-vol1", index=99))
    assert picture.wants_history("vol1")


def test_histories_events_and_names_that_are_gone_are_bounded() -> None:
    picture, _ = told(HISTORIES_MAX + 5)
    assert sum(known.history is not None for known in picture.migrations.values()) == HISTORIES_MAX
    for index in range(EVENTS_MAX + 50):
        picture.told_record(flag_set(uuid="u", migration=f"m{index}"))
        picture.told_gone(f"m{index}")
    assert len(picture.events) == EVENTS_MAX
    for index in range(GONE_MAX):
        picture.told_progress(view(f"n{index}"), NOW)
        picture.told_gone(f"n{index}")
    assert len(picture.gone) == GONE_MAX
    assert frame(picture, 1, "", NOW)["whole"]  # longer ago than is remembered


def test_browser_is_told_what_changed_since_and_nothing_twice() -> None:
    picture, _ = told(20)
    first = frame(picture, None, "", NOW)
    assert (first["whole"], len(first["rows"])) == (True, 20)
    name = first["rows"][3]["name"]
    picture.told_progress(replace(picture.migrations[name].view, paused=True), NOW)  # type: ignore[arg-type,type-var]
    for _ in range(50):  # however often it changes, a slow browser is told once
        picture.told_progress(picture.migrations[name].view, NOW)  # type: ignore[arg-type]
    then = frame(picture, first["version"], "", NOW)
    assert [row["name"] for row in then["rows"]] == [name]
    assert not then["whole"]
    nothing = frame(picture, then["version"], "", NOW)
    assert (nothing["rows"], nothing["events"], nothing["gone"]) == ([], [], [])


def test_details_come_when_they_are_asked_for_and_when_they_change() -> None:
    picture, _ = told(3)
    name = next(iter(picture.migrations))
    version = picture.version
    assert "detail" not in frame(picture, version, name, NOW)
    assert frame(picture, version, name, NOW, is_new=True)["detail"]["name"] == name
    picture.told_record(flag_set(migration=name, uuid=picture.migrations[name].uuid))
    assert frame(picture, version, name, NOW)["detail"]["name"] == name


def test_picture_of_an_earlier_process_counts_for_nothing() -> None:
    picture, _ = told()
    assert frame(picture, picture.version + 5, "", NOW)["whole"]


def test_host_that_does_not_answer_is_down_and_keeps_its_last_word() -> None:
    picture, _ = told()
    assert picture.around.hosts["vm"].is_up
    picture.told_instances({"cutover-write-cloning": ()}, NOW + 9)
    assert frame(picture, None, "", NOW)["around"]["hosts"][0]["is_up"] is False
    assert picture.around.hosts["vm"].heard == NOW
    instance = ServiceInstance(name="", instance_id="1", metadata={"host": "vm", "run": "4"})
    picture.told_instances({"cutover-write-cloning": (instance,)}, NOW + 12)
    assert (picture.around.hosts["vm"].is_up, picture.around.hosts["vm"].run) == (True, "4")


def test_lost_connection_leaves_open_who_is_up_and_whether_the_journal_syncs() -> None:
    picture, world = told()
    assert picture.around.durability.is_established
    picture.told_link(Link(is_connected=False, since=NOW))
    assert [host.is_up for host in picture.around.hosts.values()] == [None]
    assert {each["count"] for each in frame(picture, None, "", NOW)["around"]["services"]} == {None}
    assert not frame(picture, None, "", NOW)["around"]["link"]["is_connected"]
    assert frame(picture, None, "", NOW)["around"]["durability"]["is_established"] is None
    world.tell()
    assert picture.around.durability.is_established


def test_past_records_and_those_that_were_heard_are_one_feed() -> None:
    picture = Picture("e")
    live = state_record(
        state=State.SYNCING, trigger="sync", uuid="uuid-of-vol1", index=3, recorded_at=text(BEGAN)
    )
    picture.told_record(live)
    picture.told_past(
        [flag_set(uuid="uuid-of-vol1", index=2, recorded_at=text(BEGAN - timedelta(minutes=1))), live]
    )
    assert [event.story.index for event in picture.events] == [2, 3]


def test_five_hundred_migrations_are_a_frame_that_a_phone_can_take() -> None:
    picture, world = told(500)
    whole = orjson.dumps(frame(picture, None, world.views[0].name, NOW))
    assert len(whole) < 400_000


def test_authority_on_the_target_is_told() -> None:
    picture = Picture("e")
    picture.told_progress(view(state=State.TARGET_SELECTED, authority=Side.TARGET), NOW)
    assert frame(picture, None, "", NOW)["rows"][0]["authority"] == "target"
