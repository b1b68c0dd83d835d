"""What is heard on the bus: what a message says of itself is believed only where its subject and the journal say the same."""

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from services.monitoring.hearing import DOUBTED_MAX, Hearing
from services.monitoring.metrics import exposition
from services.monitoring.picture import HOST_KEPT_S, Picture
from services.monitoring.wall import Wall
from shared.bus.interface import ServiceInstance, Told
from shared.messages.codec import encode
from shared.messages.control import ListReply
from shared.messages.host import HOST_SERVICE_NAME
from shared.messages.status import HostView
from shared.migration.records import Subjects
from tests.support.records import state_record
from tests.support.staged import BEGAN, status, text, view

NOW = BEGAN.timestamp()
EVIL_NAMES = ("../../logout", "<img src=x onerror=alert(1)>", "\x1b[2Jvol1", "v" * 5000, "")


class Stopped:
    """A clock that stands."""

    def now_rfc3339(self) -> str:
        return text(BEGAN)


@pytest.fixture
def picture() -> Picture:
    """One that knows vol1, which is on the host `vm`."""
    picture = Picture("e")
    picture.told_list(ListReply(migrations=(status(view()),)), NOW, NOW)
    return picture


@pytest.fixture
def hearing(picture: Picture) -> Hearing:
    return Hearing(picture, Wall(Stopped()))


def progress(told: HostView, of: str = "vol1") -> Told:
    return Told(f"cutover.progress.{of}", encode(told))


def test_progress_of_a_migration_and_host_that_are_known_is_believed(
    hearing: Hearing, picture: Picture
) -> None:
    hearing.hear(progress(view(synced_bytes=4096)))
    assert picture.migrations["vol1"].view == view(synced_bytes=4096)


@pytest.mark.parametrize("name", [*EVIL_NAMES, "vol2"])
def test_migration_that_is_not_the_subject_s_is_not_believed(
    hearing: Hearing, picture: Picture, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Names like these once became migrations on the page, and labels in the metrics."""
    for _ in range(3):
        hearing.hear(progress(view(name)))
    assert set(picture.migrations) == {"vol1"}
    assert picture.migrations["vol1"].view is None
    (line,) = caplog.messages
    assert len(line) < 300
    assert "\x1b" not in line


@pytest.mark.parametrize("of", ["<img>", "\x1b[2J", "v" * 5000])
def test_name_that_is_none_is_not_believed_where_the_subject_has_it_too(
    hearing: Hearing, picture: Picture, caplog: pytest.LogCaptureFixture, of: str
) -> None:
    hearing.hear(progress(view(of), of))
    assert set(picture.migrations) == {"vol1"}
    assert len(caplog.messages[0]) < 300
    assert "\x1b" not in caplog.messages[0]


@pytest.mark.parametrize("host", [*EVIL_NAMES, "ghost001"])
def test_host_that_nobody_else_knows_is_not_believed(hearing: Hearing, picture: Picture, host: str) -> None:
    """Five hundred of them would have made as many alerts, for ever."""
    hearing.hear(progress(view(host=host)))
    assert set(picture.around.hosts) == {"vm"}
    assert picture.migrations["vol1"].view is None
    assert b"ghost" not in exposition(picture, "")[0]


@pytest.mark.parametrize("told", [view("vol2"), view(uuid="another")])
def test_migration_that_the_journal_does_not_know_is_not_believed(
    hearing: Hearing, picture: Picture, told: HostView
) -> None:
    hearing.hear(progress(told, told.name))
    assert set(picture.migrations) == {"vol1"}
    assert picture.migrations["vol1"].uuid == "uuid-of-vol1"
    record = replace(state_record(), migration=told.name, uuid=told.uuid)
    assert hearing.hear(Told(Subjects.of(record), encode(record))) == told.name
    hearing.hear(progress(told, told.name))
    assert picture.migrations[told.name].view == told


@pytest.mark.parametrize("name", ["vol2", "../../logout"])
def test_record_that_belongs_elsewhere_is_not_believed(hearing: Hearing, picture: Picture, name: str) -> None:
    record = replace(state_record(), migration=name)
    assert hearing.hear(Told("cutover.journal.vol1.state", encode(record))) is None
    assert hearing.hear(Told("cutover.journal.../../logout.state", encode(record))) is None
    assert set(picture.migrations) == {"vol1"}
    assert not picture.events


def test_time_in_the_future_is_told_as_now(hearing: Hearing, picture: Picture) -> None:
    hearing.hear(progress(view(at=BEGAN + timedelta(days=9000))))
    assert picture.migrations["vol1"].view == view(at=BEGAN)
    hearing.hear(progress(view(at=BEGAN - timedelta(seconds=3))))
    assert picture.migrations["vol1"].view == view(at=BEGAN - timedelta(seconds=3))


def test_what_is_not_believed_is_logged_a_bounded_number_of_times(
    hearing: Hearing, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for number in range(DOUBTED_MAX + 50):
            hearing.hear(progress(view(), f"v{number}"))
    assert len(caplog.messages) == DOUBTED_MAX


def test_host_that_is_retired_is_forgotten_and_one_that_has_a_migration_is_not(picture: Picture) -> None:
    old = ServiceInstance(name="", instance_id="1", metadata={"host": "old", "run": "4" * 5000})
    picture.told_instances({HOST_SERVICE_NAME: (old,)}, NOW)
    assert len(picture.around.hosts["old"].run) <= 20
    picture.told_instances({HOST_SERVICE_NAME: ()}, NOW + 4)
    picture.passed(NOW + HOST_KEPT_S - 1)
    assert set(picture.around.hosts) == {"vm", "old"}
    version = picture.around.version
    picture.passed(NOW + HOST_KEPT_S + 1)
    assert set(picture.around.hosts) == {"vm"}
    assert picture.around.version > version
    assert b'cutover_host_up{host="vm"} 0' in exposition(picture, "")[0]


def test_name_that_is_none_makes_no_host(picture: Picture) -> None:
    told = [ServiceInstance(name="", instance_id="1", metadata={"host": name}) for name in EVIL_NAMES]
    picture.told_instances({HOST_SERVICE_NAME: told}, NOW)
    assert set(picture.around.hosts) == {"vm"}
