"""NATS is away: whoever asks is told within five seconds; applications notice nothing; and when it is back, all goes on."""

import json
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests.acceptance.system.application import Application
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.remote import faulty
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, SERVICES, System

BOUND_S = 5.0
AWAY_S = 15.0
STATES = ("setup", "syncing", "source-selected", "target-selected", "committed")


def test_operators_command_says_so_within_five_seconds(own_system: Callable[..., System]) -> None:
    system = own_system()
    system.stop_nats()
    commands = (("query", "vol1"), ("commit", "vol1", "--yes"))
    with ThreadPoolExecutor() as threads:
        began = time.monotonic()
        for done in threads.map(lambda arguments: system.cutover(*arguments), commands):
            assert (done.returncode, done.stdout) == (1, "")
            assert f"NATS at {system.url} cannot be reached" in done.stderr
        took_s = time.monotonic() - began
        began = time.monotonic()
        assert all(done.returncode == 0 for done in threads.map(system.cutover, ("--version", "--version")))
        to_start_s = time.monotonic() - began  # the rest of what they take, on a machine as busy as it is
    assert took_s < BOUND_S + to_start_s
    system.start_nats()


def test_host_says_on_its_own_machine_what_the_journal_cannot(own_system: Callable[..., System]) -> None:
    """The target fails while nobody can record it: `query` and `list` say so at once, and in the end it is recorded once."""
    system = own_system(target_flush_interval_s=0.5)
    client = system.client
    pair = make_pair(system)
    with faulty(pair.target, "pwrite") as target:
        system.set_up("vol1", pair.source, target.uri)
        bring_to(system, "vol1", "source-selected")
        before = len(client.journal("vol1"))
        with Application(system.export("vol1"), blocks=64) as application:
            system.stop_nats()
            began = time.monotonic()
            (asked,) = _asked_here(system, ("query", "vol1", "--json"))
            assert time.monotonic() - began < BOUND_S
            status = json.loads(asked)
            assert (status["source_of_status"], status["state"]) == ("host", "source-selected")
            assert (status["journal_pending"], status["error_flag"], status["faults"]) == (False, True, [])
            assert status["nats_lost_at"] < status["as_of"]
            target.fail()
            system.until_log(CLONING, "not in the journal yet", timeout_s=10)
            application.until_operations(100)
            asked, listed, for_people = _asked_here(
                system, ("query", "vol1", "--json"), ("list", "--json"), ("query", "vol1")
            )
            status = json.loads(asked)
            assert (status["state"], status["attempt"], status["authority"]) == ("setup", 1, "source")
            assert (status["journal_pending"], status["error_flag"], status["allowed"]) == (True, True, [])
            assert status["routing"] == {"reads": "source", "writes": ["source"], "flushes": ["source"]}
            assert len(status["connections"]) == 1
            unrecorded = status["unrecorded"]
            assert {fault["side"] for fault in unrecorded["faults"]} == {"target"}
            decided = [(each["trigger"], each["state"]) for each in unrecorded["decisions"]]
            assert (decided, unrecorded["flag_clear"]) == ([("target-fault", "setup")], True)
            assert [each["uuid"] for each in json.loads(listed)] == [status["uuid"]]
            assert for_people.startswith(f"NATS is away: NATS at {system.url} cannot be reached")
            assert f"since {status['nats_lost_at']}. What the journal holds is not known." in for_people
            assert "target fault: write" in for_people
            system.start_nats()
            for service in SERVICES:
                system.wait_ready(service)
            recorded = client.until(
                "vol1", lambda each: not each["error_flag"] and not each["journal_pending"]
            )
            report = application.stop()
    assert report.errors == []
    assert report.differences(pair.source) == []
    assert (recorded["state"], recorded["source_of_status"]) == ("setup", "journal")
    assert recorded["unrecorded"] is None
    words = client.words("vol1")[before:]
    assert words == ["fault target"] * len(unrecorded["faults"]) + ["state setup", "flag-clear"]


def _asked_here(system: System, *commands: tuple[str, ...]) -> list[str]:
    """What is answered on the host's machine."""
    with ThreadPoolExecutor() as threads:
        asked = threads.map(
            lambda arguments: system.cutover(*arguments, "--config", str(system.config)), commands
        )
        ended = list(asked)
    assert [(each.returncode, each.stderr) for each in ended] == [(0, "")] * len(commands)
    return [each.stdout for each in ended]


def test_host_that_waits_for_nats_says_so_and_its_socket_comes_and_goes_with_it(
    own_system: Callable[..., System],
) -> None:
    system = own_system()
    path, here = system.state_dir / "status.sock", ("--config", str(system.config))
    system.stop_nats()
    system.kill_service(CLONING)
    assert path.is_socket(), "nobody was there to remove it"
    system.start_service(CLONING, wait=False)
    system.until_log(CLONING, "waiting for NATS", timeout_s=20)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "It has no volume open: Waiting for NATS" in _asked_here(system, ("list",))[0]
    waiting = system.cutover("query", "vol1", *here)
    assert waiting.returncode == 1
    assert "Host h1 on this machine does not have vol1 open: Waiting for NATS" in waiting.stderr
    system.start_nats()
    system.wait_ready(CLONING)
    assert system.stop_service(CLONING) == 0
    assert not path.exists()


def test_application_goes_on_and_the_migration_too_once_nats_is_back(
    own_system: Callable[..., System],
) -> None:
    system = own_system()
    client = system.client
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    client.command("sync", "vol1")
    client.until_state("vol1", "source-selected")
    before = client.journal_length()
    with Application(system.export("vol1")) as application:
        system.stop_nats()
        application.until_operations(200)
        system.start_nats()
        for service in ("fault_recording", "state_control", "startup", CLONING):
            system.wait_ready(service)
        assert client.journal_length() == before
        client.command("select-target", "vol1")
        application.until_operations(200)
        report = application.stop()
    assert report.errors == []
    client.command("commit", "vol1")
    assert report.differences(pair.target) == []


def test_io_goes_on_in_every_state_and_what_is_decided_meanwhile_is_recorded_once(
    own_system: Callable[..., System],
) -> None:
    system = own_system(target_flush_interval_s=0.5)
    client = system.client
    pairs = {state: make_pair(system) for state in STATES}
    failing = make_pair(system)
    with ExitStack() as ends:
        target = ends.enter_context(faulty(failing.target, "pwrite"))
        for state, pair in pairs.items():
            system.set_up(state, pair.source, pair.target)
            bring_to(system, state, state)
        system.set_up("failing", failing.source, target.uri)
        bring_to(system, "failing", "target-selected")
        before = {name: len(client.journal(name)) for name in (*STATES, "failing")}
        applications = {
            name: ends.enter_context(Application(system.export(name), blocks=64)) for name in before
        }
        system.stop_nats()
        target.fail()
        end = time.monotonic() + AWAY_S
        while time.monotonic() < end:
            for application in applications.values():
                application.until_operations(20)
        done = system.cutover("query", "failing")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"NATS at {system.url} cannot be reached" in done.stderr
        system.start_nats()
        for service in SERVICES:
            system.wait_ready(service)
        client.until(
            "failing",
            lambda each: each["state"] == "setup" and not each["error_flag"] and not each["journal_pending"],
            what="everything recorded",
        )
        target.mend()
        reports = {name: application.stop() for name, application in applications.items()}
    assert [error for report in reports.values() for error in report.errors] == []
    assert reports["failing"].differences(failing.source) == []
    for state, pair in pairs.items():
        authority = pair.target if state == "committed" else pair.source
        assert reports[state].differences(authority) == []
        assert len(client.journal(state)) == before[state], "something was recorded that nobody decided"
    words = client.words("failing")[before["failing"] :]
    assert words.count("fault target") == len([word for word in words if word.startswith("fault")]) >= 1
    assert [word for word in words if word != "fault target"] == ["state setup", "flag-clear"]
    fault = client.ask("cutover.control.faults.failing").accepted()["faults"][0]
    assert fault["state"] == "target-selected"
    assert fault["recorded_at"] > fault["detected_at"], "it was recorded while NATS was away"
