"""A device that hangs: it stalls neither another volume nor a question; and as a target it is dropped when its time is over."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.background import Background
from tests.acceptance.system.devices import MIB, Freezable, digest, empty_file, freezable, full_file
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, System, running_system

pytestmark = pytest.mark.needs_root

IO_TIMEOUT_S = 1.5
SHUTDOWN_TIMEOUT_S = 5.0
BOUND_MS = 100.0
STALL_MS = 500.0  # one of hundreds may wait for a busy machine; who waits for the device waits for the thaw
LOOKED_AT_S = 2.0


@pytest.fixture(scope="module")
def _impatient(background: Background) -> Iterator[System]:
    with running_system(
        background,
        io_timeout_s=IO_TIMEOUT_S,
        target_flush_interval_s=0.5,
        shutdown_timeout_s=SHUTDOWN_TIMEOUT_S,
    ) as system:
        yield system


@pytest.fixture
def frozen_part(_impatient: System) -> Iterator[Freezable]:
    """A filesystem to be frozen. Thawed, and given up by the host, before it is unmounted."""
    with freezable(_impatient.data, 64 * MIB) as filesystem:
        yield filesystem
        filesystem.thaw()
        _impatient.mend()
        _impatient.clean_up_all()


@pytest.fixture
def running(_impatient: System, frozen_part: Freezable) -> System:
    return _impatient


def question_latencies_ms(system: System, name: str, seconds: float) -> list[float]:
    """How long `query` takes, asked again and again; sorted."""
    latencies_ms: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = system.client.ask(f"cutover.control.query.{name}")
        assert answer.accepted()["host_answers"]
        latencies_ms.append(answer.took_s * 1000)
    return sorted(latencies_ms)


def p99(latencies_ms: list[float]) -> float:
    """Of sorted ones."""
    return latencies_ms[len(latencies_ms) * 99 // 100]


@pytest.mark.parametrize("side", ["source", "target"])
def test_frozen_device_stalls_neither_another_volume_nor_a_question(
    running: System, frozen_part: Freezable, side: str
) -> None:
    system = running
    well = make_pair(system, size_bytes=8 * MIB)
    source, target = frozen_pair(system, frozen_part, side)
    for name, pair in (("frozen", (source, target)), ("well", (well.source, well.target))):
        system.set_up(name, *pair)
        bring_to(system, name, "source-selected")
    with (
        Application(system.export("well"), blocks=1024) as application,
        Application(system.export("frozen"), blocks=256) as stalled,
    ):
        stalled.until_operations(50)
        application.until_operations(50)
        usual_ms = p99(question_latencies_ms(system, "frozen", LOOKED_AT_S))
        frozen_part.freeze()
        questions_ms = question_latencies_ms(system, "frozen", LOOKED_AT_S)
        application.until_operations(200)
        report = application.stop()
        frozen_part.thaw()
        stalled.until_operations(50)
        late = stalled.stop()
    assert report.errors == []
    bound_ms = max(BOUND_MS, 2 * usual_ms)  # other work on this machine may be all that is felt
    assert report.p99_ms < bound_ms
    assert p99(questions_ms) < bound_ms
    assert questions_ms[-1] < STALL_MS
    assert report.differences(well.target) == []
    assert late.errors == []
    assert late.differences(source) == []


def frozen_pair(system: System, frozen_part: Freezable, side: str) -> tuple[Path, Path]:
    """A pair of which one side lies in what will be frozen."""
    folders = {"source": system.data, "target": system.data} | {side: frozen_part.path}
    source = full_file(folders["source"] / "frozen-source.img", 4 * MIB, seed=3)
    return source, empty_file(folders["target"] / "frozen-target.img", 4 * MIB)


@pytest.mark.parametrize("state", ["syncing", "source-selected", "target-selected"])
def test_frozen_target_is_dropped_when_its_time_is_over_and_the_application_goes_on(
    running: System, frozen_part: Freezable, state: str
) -> None:
    system, client = running, running.client
    source, target = frozen_pair(system, frozen_part, "target")
    system.set_up("vol1", source, target)
    bring_to(system, "vol1", state)
    length = len(client.journal("vol1"))
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(100)
        frozen_part.freeze()
        began = time.monotonic()
        status = client.until(
            "vol1", lambda each: each["state"] == "setup" and not each["error_flag"], what="setup"
        )
        took_s = time.monotonic() - began
        application.until_operations(200)
        assert {(each["side"], each["cause"], each["attempt"]) for each in status["faults"]} == {
            ("target", "timeout", 1)
        }
        assert took_s < 4 * IO_TIMEOUT_S
        refusal = client.refused("sync", "vol1")
        assert refusal.code == "outstanding-requests"
        assert any(character.isdigit() for character in refusal.message), "the number is not named"
        assert client.query("vol1")["state"] == "setup"
        frozen_part.thaw()
        client.until("vol1", lambda _: outstanding(system, "vol1") == 0, what="none outstanding")
        assert client.command("sync", "vol1")["attempt"] == 2
        client.command("resume", "vol1")
        client.until_state("vol1", "source-selected")
        application.until_operations(100)
        report = application.stop()
    assert report.errors == [], "the application was told of a target that it does not need"
    assert report.worst_ms < 4 * IO_TIMEOUT_S * 1000
    assert report.differences(source) == []
    assert report.differences(target) == []
    assert digest(source) == digest(target)
    words = client.words("vol1")[length:]
    assert words[0] == "fault target"
    assert [word for word in words if word != "fault target"] == [
        "state setup", "flag-clear", "flag-set", "state syncing", "state source-selected",
    ]  # fmt: skip


def outstanding(system: System, name: str) -> int:
    status = system.client.ask(f"cutover.host.h1.status.{name}").accepted()
    count: int = status["migrations"][0]["outstanding_target_requests"]
    return count


def test_target_that_hangs_while_it_is_copied_to_is_dropped(running: System, frozen_part: Freezable) -> None:
    """No application: the copier alone meets it."""
    system, client = running, running.client
    source, target = frozen_pair(system, frozen_part, "target")
    system.set_up("vol1", source, target)
    client.command("throttle", "vol1", bytes_per_s=2 * MIB)
    client.command("sync", "vol1")
    client.until("vol1", lambda status: status["synced_bytes"] > 0)
    frozen_part.freeze()
    status = client.until("vol1", lambda each: each["state"] == "setup" and not each["error_flag"])
    assert {(each["side"], each["cause"]) for each in status["faults"]} == {("target", "timeout")}


def test_host_with_a_frozen_target_stops_in_time(running: System, frozen_part: Freezable) -> None:
    """SIGTERM while the target hangs: a target fault like any other; the source has everything, and the journal all of it."""
    system, client = running, running.client
    source, target = frozen_pair(system, frozen_part, "target")
    system.set_up("vol1", source, target)
    bring_to(system, "vol1", "source-selected")
    length = len(client.journal("vol1"))
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(100)
        frozen_part.freeze()
        with client.heard("cutover.journal.vol1.flag") as flags:
            system.ask_to_stop(CLONING)
            flags.get(timeout=SHUTDOWN_TIMEOUT_S)
        report = application.stop()
    words = client.words("vol1")[length:]
    assert (words[0], words[-2:]) == ("fault target", ["state setup", "flag-clear"])
    assert report.differences(source) == []
    # The kernel keeps a process whose requests it has not done, so what it ends with is known only now.
    frozen_part.thaw()
    assert system.until_gone(CLONING) == 0, system.log(CLONING)
    assert "Traceback" not in system.log(CLONING)
    system.start_service(CLONING)
    after = client.query("vol1")
    assert (after["state"], after["error_flag"]) == ("setup", False)
    assert {(each["side"], each["cause"]) for each in after["faults"]} == {("target", "timeout")}
    assert report.differences(source) == []


def test_host_with_a_frozen_source_gives_up_in_time_and_says_that_the_stop_was_not_clean(
    running: System, frozen_part: Freezable
) -> None:
    """What the application wrote cannot be flushed, so the flag stays: safe, and a resync is the price."""
    system, client = running, running.client
    source, target = frozen_pair(system, frozen_part, "source")
    system.set_up("vol1", source, target)
    bring_to(system, "vol1", "source-selected")
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(100)
        frozen_part.freeze()
        question_latencies_ms(system, "vol1", 0.3)  # until a write is under way
        began = time.monotonic()
        system.ask_to_stop(CLONING)
        system.until_log(CLONING, "the stop was not clean", timeout_s=2 * SHUTDOWN_TIMEOUT_S)
        assert time.monotonic() - began < SHUTDOWN_TIMEOUT_S + 2
        assert client.is_flagged("vol1")
        frozen_part.thaw()
        assert system.until_gone(CLONING) == 1, system.log(CLONING)
        report = application.stop()
    assert "Traceback" not in system.log(CLONING)
    system.start_service(CLONING)
    after = client.query("vol1")
    assert (after["state"], after["error_flag"]) == ("setup", False)
    assert [each["cause"] for each in after["faults"]] == ["unclean-shutdown"]
    assert report.differences(source) == []
