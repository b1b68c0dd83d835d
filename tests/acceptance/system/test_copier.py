"""What the operator can do with the copier: pause, resume, throttle."""

import json
import time
from pathlib import Path

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.devices import MIB, digest
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.plain_client import Json
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, System

RATE_BYTES_PER_S = 16 * MIB
WARM_UP_S = 1.0
MEASURED_S = 3.0
TOLERANCE = 0.10


def progress(system: System, name: str, seconds: float) -> list[Json]:
    """What the host tells monitors in this time."""
    told = []
    end = time.monotonic() + seconds
    with system.client.heard(f"cutover.progress.{name}") as news:
        while (left := end - time.monotonic()) > 0:
            try:
                told.append(json.loads(news.get(timeout=left).data))
            except Exception:  # noqa: BLE001 - the time is over
                break
    return told


def test_paused_copier_copies_nothing_and_writes_go_to_both(system: System) -> None:
    pair = make_pair(system, size_bytes=16 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("pause", "vol1")
    system.client.command("sync", "vol1")
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(300)
        status = system.client.query("vol1")
        assert (status["state"], status["paused"], status["synced_bytes"]) == ("syncing", True, 0)
        assert status["eta_s"] is None
        report = application.stop()
    assert report.differences(pair.source) == []
    assert report.differences(pair.target) == []
    assert pair.target.stat().st_blocks * 512 <= 256 * 4096 + 64 * 1024, "something was copied"
    done = system.cutover("resume", "vol1")
    assert done.returncode == 0, done.stderr
    system.client.until_state("vol1", "source-selected")
    assert digest(pair.source) == digest(pair.target)


def test_pause_in_the_middle_stops_within_the_regions_begun(system: System) -> None:
    pair = make_pair(system, size_bytes=48 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("throttle", "vol1", bytes_per_s=RATE_BYTES_PER_S)
    system.client.command("sync", "vol1")
    system.client.until("vol1", lambda status: status["synced_bytes"] > 0)
    system.client.command("pause", "vol1")
    progress(system, "vol1", 0.5)  # what had begun is finished in this time
    before = system.client.query("vol1")["synced_bytes"]
    progress(system, "vol1", 0.5)
    after = system.client.query("vol1")
    assert 0 < before < 48 * MIB
    assert after["synced_bytes"] == before
    assert after["rate_bytes_per_s"] == 0


def written_bytes(device: Path) -> int:
    """What a file on disk holds, page cache included, as its filesystem counts it."""
    return device.stat().st_blocks * 512


def test_throttle_holds_within_ten_percent(system: System) -> None:
    """Counted at the target itself: what it has allocated, over some seconds."""
    pair = make_pair(system, size_bytes=96 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    done = system.cutover("throttle", "vol1", "16MiB/s")
    assert done.returncode == 0, done.stderr
    system.client.command("sync", "vol1")
    time.sleep(WARM_UP_S)  # a rate takes time to be measured
    began, first = time.monotonic(), system.client.query("vol1")["synced_bytes"]
    time.sleep(MEASURED_S)
    ended, status = time.monotonic(), system.client.query("vol1")
    rate = (status["synced_bytes"] - first) / (ended - began)
    assert status["state"] == "syncing"
    assert status["throttle_bytes_per_s"] == RATE_BYTES_PER_S
    assert rate == pytest.approx(RATE_BYTES_PER_S, rel=TOLERANCE)
    assert status["rate_bytes_per_s"] == pytest.approx(RATE_BYTES_PER_S, rel=TOLERANCE)
    assert status["eta_s"] == pytest.approx(status["remaining_bytes"] / RATE_BYTES_PER_S, rel=2 * TOLERANCE)
    assert written_bytes(pair.target) == pytest.approx(status["synced_bytes"], abs=RATE_BYTES_PER_S // 4)
    done = system.cutover("throttle", "vol1", "off")
    assert done.returncode == 0, done.stderr
    system.client.until_state("vol1", "source-selected")
    assert digest(pair.source) == digest(pair.target)


def test_throttle_that_is_changed_holds_at_once(system: System) -> None:
    """From one byte a second, which would take for ever, to none."""
    pair = make_pair(system, size_bytes=8 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("throttle", "vol1", bytes_per_s=1)
    system.client.command("sync", "vol1")
    system.client.command("throttle", "vol1", bytes_per_s=None)
    system.client.until_state("vol1", "source-selected", timeout_s=5)


def test_limits_do_not_touch_the_application(system: System, pair: Pair) -> None:
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("throttle", "vol1", bytes_per_s=4096)
    system.client.command("sync", "vol1")
    with Application(system.export("vol1"), blocks=1024) as application:
        application.until_operations(500, timeout_s=10)
        report = application.stop()
    assert report.errors == []
    assert report.differences(pair.target) == []


def test_pause_ends_with_its_attempt(system: System) -> None:
    """Cause: it was kept for good. Given in `target-selected`, it held the next attempt at 0 %, and nothing said why."""
    pair = make_pair(system, size_bytes=8 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    bring_to(system, "vol1", "target-selected")
    system.client.command("pause", "vol1")
    system.client.command("abort", "vol1")
    assert not system.client.query("vol1")["paused"]
    assert system.client.command("sync", "vol1")["message"] == ""
    system.client.until_state("vol1", "source-selected")
    assert digest(pair.source) == digest(pair.target)


def test_pause_ends_with_an_attempt_that_a_crash_has_ended(running: tuple[System, Pair]) -> None:
    system, _pair = running
    bring_to(system, "vol1", "syncing")
    system.kill_service(CLONING)
    system.start_service(CLONING)
    status = system.client.until("vol1", lambda each: each["state"] == "setup" and not each["error_flag"])
    assert not status["paused"]


def test_pause_before_a_sync_holds_it_and_everyone_says_so(system: System) -> None:
    pair = make_pair(system, size_bytes=8 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("pause", "vol1")
    words = "The copier is paused: `cutover resume vol1` lets it go on."
    assert words in system.cutover("sync", "vol1").stdout
    assert "  paused  " in system.cutover("list").stdout
    waited = system.cutover("wait", "vol1", "source-selected", "--timeout", "1")
    assert waited.returncode == 1
    assert "The copier of vol1 is paused: `cutover resume vol1` lets it go on." in waited.stderr


def test_throttle_below_a_region_a_second_is_told_with_its_rate_and_its_end(system: System) -> None:
    pair = make_pair(system, size_bytes=8 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    rate = 300 * 1024
    system.client.command("throttle", "vol1", bytes_per_s=rate)
    system.client.command("sync", "vol1")
    system.client.until("vol1", lambda status: status["synced_bytes"] >= 2 * MIB)
    for _ in range(4):
        time.sleep(0.7)
        status = system.client.query("vol1")
        assert rate / 2 < status["rate_bytes_per_s"] < 3 * rate
        assert status["eta_s"] > 0
