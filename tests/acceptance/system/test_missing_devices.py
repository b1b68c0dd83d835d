"""Devices that are gone, or are another migration's: while the host runs, and when it starts again."""

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, HOST, System


@pytest.mark.parametrize("state", ["syncing", "source-selected", "target-selected"])
def test_target_that_is_gone_at_a_start_has_failed_and_the_source_is_served(
    running: tuple[System, Pair], state: str
) -> None:
    """After a clean stop the volume stayed closed, after a crash it did not."""
    system, pair = running
    client = system.client
    with Application(system.export("vol1")) as application:
        bring_to(system, "vol1", state)
        application.until_operations(100)
        assert system.stop_service(CLONING) == 0
        report = application.stop()
    elsewhere = pair.target.with_suffix(".away")
    pair.target.rename(elsewhere)
    system.start_service(CLONING)
    client.until_state("vol1", "setup")
    assert [(fault["operation"], fault["cause"]) for fault in client.query("vol1")["faults"]] == [
        ("open", "device-missing")
    ]
    with Application(system.export("vol1"), seed=2) as application:
        application.until_operations(100)
        second = application.stop()
    assert second.errors == []
    assert report.without(second).differences(pair.source) == []
    assert second.differences(pair.source) == []
    assert client.refused("sync", "vol1").code == "device-missing"
    elsewhere.rename(pair.target)
    client.command("sync", "vol1")
    client.command("resume", "vol1")  # the way to `syncing` has paused it
    client.until_state("vol1", "source-selected")
    assert client.query("vol1")["faults"] == []


def test_volume_that_stays_closed_says_what_would_admit_it_and_offers_no_command(
    running: tuple[System, Pair],
) -> None:
    system, pair = running
    bring_to(system, "vol1", "source-selected")
    assert system.stop_service(CLONING) == 0
    elsewhere = pair.source.with_suffix(".away")
    pair.source.rename(elsewhere)
    system.start_service(CLONING)
    status = system.client.query("vol1")
    assert str(pair.source) in status["host_error"]
    assert f"restart the write cloning service of host {HOST}" in status["host_error"]
    assert status["allowed"] == []
    assert system.stop_service(CLONING) == 0
    elsewhere.rename(pair.source)
    system.start_service(CLONING)
    assert system.client.query("vol1")["state"] == "source-selected"


@pytest.mark.parametrize("side", ["source", "target"])
def test_device_of_another_migration_is_refused_by_its_name(running: tuple[System, Pair], side: str) -> None:
    system, pair = running
    other = make_pair(system, "other")
    taken = pair.source if side == "source" else pair.target
    link = taken.with_name("link.img")
    link.symlink_to(taken)
    refusal = system.client.refused("setup", "vol2", source=str(link), target=str(other.target), host=HOST)
    assert refusal.code == "device-busy"
    assert str(link) in refusal.message
    assert f"the {side} of migration vol1" in refusal.message


def test_target_that_was_deleted_is_not_committed_to(running: tuple[System, Pair]) -> None:
    system, pair = running
    client = system.client
    bring_to(system, "vol1", "target-selected")
    elsewhere = pair.target.with_suffix(".away")
    pair.target.rename(elsewhere)
    refusal = client.refused("commit", "vol1")
    assert refusal.code == "device-changed"
    assert str(pair.target) in refusal.message
    assert client.query("vol1")["state"] == "target-selected"
    elsewhere.rename(pair.target)
    client.command("commit", "vol1")
