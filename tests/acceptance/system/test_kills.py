"""SIGKILL of the host in every state: startup knows an unclean stop for what it is, before any application I/O."""

import json

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.devices import MIB, digest
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, SERVICES, System


@pytest.mark.parametrize("state", ["syncing", "source-selected", "target-selected"])
def test_kill_while_cloning_ends_the_attempt_with_a_target_fault(
    running: tuple[System, Pair], state: str
) -> None:
    system, pair = running
    client = system.client
    with Application(system.export("vol1"), blocks=1024) as application:
        bring_to(system, "vol1", state)
        application.until_operations(100)
        system.kill_service(CLONING)
        report = application.stop()
    assert client.is_flagged("vol1"), "the flag outlives the host"
    assert json.loads(system.witness("vol1").read_bytes())["witness"]["state"] == state
    length = len(client.journal("vol1"))
    in_source = digest(pair.source)

    system.start_service(CLONING)
    assert client.words("vol1")[length:] == ["fault target", "state setup", "flag-clear"]
    assert digest(pair.source) == in_source
    assert report.differences(pair.source) == []
    status = client.query("vol1")
    assert (status["state"], status["attempt"], status["error_flag"]) == ("setup", 1, False)
    assert [(each["side"], each["cause"], each["state"]) for each in status["faults"]] == [
        ("target", "unclean-shutdown", state)
    ]
    done = system.cutover("faults", "vol1")
    assert "unclean-shutdown" in done.stdout

    client.command("sync", "vol1")
    client.command("resume", "vol1")
    client.until_state("vol1", "source-selected")
    assert digest(pair.source) == digest(pair.target)
    assert client.query("vol1")["faults"] == [], "a fault belongs to its attempt"
    assert "unclean-shutdown" in system.cutover("faults", "vol1").stdout


@pytest.mark.parametrize("state", ["setup", "committed"])
def test_kill_while_one_side_has_all_is_admitted_as_it_was(running: tuple[System, Pair], state: str) -> None:
    system, pair = running
    client = system.client
    authority = pair.target if state == "committed" else pair.source
    with Application(system.export("vol1"), blocks=1024) as application:
        bring_to(system, "vol1", state)
        application.until_operations(100)
        system.kill_service(CLONING)
        report = application.stop()
    before = client.journal_length()
    system.start_service(CLONING)
    status = client.query("vol1")
    assert (status["state"], status["error_flag"], status["faults"]) == (state, False, [])
    assert client.journal_length() == before + 1, "that this run has opened it, and nothing else"
    assert report.differences(authority) == []
    with Application(system.export("vol1"), seed=2) as application:
        application.until_operations(50)
        assert application.stop().errors == []


def test_kill_again_and_again_during_startup_comes_to_the_same_verdict(running: tuple[System, Pair]) -> None:
    system, pair = running
    client = system.client
    bring_to(system, "vol1", "target-selected")
    system.kill_service(CLONING)
    in_source = digest(pair.source)
    length = len(client.journal("vol1"))
    for _ in range(3):
        with client.heard("cutover.startup.admit.>", "cutover.journal.>") as news:
            system.start_service(CLONING, wait=False)
            news.get(timeout=20)
            system.kill_service(CLONING)
    system.start_service(CLONING)
    status = client.until("vol1", lambda each: not each["error_flag"])
    assert status["state"] == "setup"
    assert [fault["cause"] for fault in status["faults"]] == ["unclean-shutdown"]
    words = client.words("vol1")[length:]
    assert words[:3] == ["fault target", "state setup", "flag-clear"]
    assert set(words[3:]) <= {"state setup"}, (
        "that trusts the region map, so that each start is on record, and no more"
    )
    assert digest(pair.source) == in_source


@pytest.mark.parametrize("service", [each for each in SERVICES if each != CLONING])
def test_other_service_that_is_killed_does_no_harm(running: tuple[System, Pair], service: str) -> None:
    """Applications go on; what needs the service says that it is away; and it goes on once it is there again."""
    system, pair = running
    client = system.client
    with Application(system.export("vol1"), blocks=1024) as application:
        bring_to(system, "vol1", "source-selected")
        before = client.journal_length()
        system.kill_service(service)
        application.until_operations(100)
        if service == "state_control":
            done = system.cutover("select-target", "vol1")
            assert done.returncode == 1
            assert "Nobody" in done.stderr or "away" in done.stderr or "serves" in done.stderr
            assert client.journal_length() == before
        elif service == "fault_recording":
            other = make_pair(system, "other")
            system.set_up("vol2", other.source, other.target)
            refusal = client.refused("sync", "vol2")
            assert refusal.code == "service-away"
            assert client.query("vol2")["state"] == "setup"
        else:
            assert client.command("select-target", "vol1")["state"] == "target-selected"
            client.command("select-source", "vol1")
        system.start_service(service)
        client.command("select-target", "vol1")
        application.until_operations(100)
        client.command("commit", "vol1")
        client.until("vol1", lambda status: not status["error_flag"] and not status["journal_pending"])
        report = application.stop()
    assert report.errors == []
    assert report.differences(pair.target) == []


def test_all_other_services_killed_while_copying_are_caught_up_with(running: tuple[System, Pair]) -> None:
    """The host finishes copying and decides by itself; the journal holds it as soon as somebody can write it."""
    system, pair = running
    client = system.client
    client.command("throttle", "vol1", bytes_per_s=8 * MIB)
    client.command("sync", "vol1")
    for service in SERVICES:
        if service != CLONING:
            system.kill_service(service)
    with client.heard("cutover.progress.vol1") as news:
        while json.loads(news.get(timeout=20).data)["state"] != "source-selected":
            continue
    assert client.words("vol1")[-1] == "state syncing"
    for service in SERVICES:
        if service != CLONING:
            system.start_service(service)
    client.until_state("vol1", "source-selected")
    assert client.words("vol1")[-1] == "state source-selected"
    assert digest(pair.source) == digest(pair.target)
