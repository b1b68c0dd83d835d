"""NATS is away: whoever asks is told within five seconds; applications notice nothing; and when it is back, all goes on."""

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
        assert time.monotonic() - began < BOUND_S
    system.start_nats()


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
