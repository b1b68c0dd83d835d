"""The life of a migration, with an application on the volume all the time."""

import json

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.devices import digest, is_free, loop_device
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.whole_system import System

ROUTING = {  # from the design
    "setup": ("source", ["source"], ["source"]),
    "syncing": ("source", ["source", "target"], ["source"]),
    "source-selected": ("source", ["source", "target"], ["source"]),
    "target-selected": ("target", ["source", "target"], ["source", "target"]),
    "committed": ("target", ["target"], ["target"]),
}


def operator(system: System, *arguments: str) -> dict[str, object]:
    """Run the operator's command, which has to succeed; what it says as JSON."""
    done = system.cutover(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


def routing(system: System, name: str) -> tuple[str, list[str], list[str]]:
    told = system.client.query(name)["routing"]
    return told["reads"], told["writes"], told["flushes"]


def test_live_volume_goes_through_all_five_states_and_loses_nothing(system: System) -> None:
    pair = make_pair(system, size_bytes=16 << 20)
    operator(system, "setup", "vol1", "--source", str(pair.source), "--target", str(pair.target))
    seen = {"setup": routing(system, "vol1")}
    with Application(system.export("vol1"), blocks=2048) as application:
        application.until_operations(100)
        operator(system, "sync", "vol1")
        system.client.command("pause", "vol1")
        if system.client.query("vol1")["state"] == "syncing":
            seen["syncing"] = routing(system, "vol1")
        system.client.command("resume", "vol1")
        waited = operator(system, "wait", "vol1", "source-selected", "--timeout", "20")
        assert waited["state"] == "source-selected"
        seen["source-selected"] = routing(system, "vol1")
        application.until_operations(100)
        for step in ("select-target", "select-source", "select-target"):
            operator(system, step, "vol1")
            application.until_operations(100)
        seen["target-selected"] = routing(system, "vol1")
        assert system.client.is_flagged("vol1")
        operator(system, "commit", "vol1", "--yes")
        seen["committed"] = routing(system, "vol1")
        in_source = digest(pair.source)
        application.until_operations(200)
        status = system.client.query("vol1")
        assert [each["peer"] for each in status["connections"]] != []
        report = application.stop()
    assert report.errors == []
    assert report.differences(pair.target) == []
    assert digest(pair.source) == in_source, "the source was written to after commit"
    assert all(seen[state] == ROUTING[state] for state in seen)
    assert not system.client.until("vol1", lambda each: not each["error_flag"])["faults"]
    operator(system, "cleanup", "vol1", "--yes")
    assert is_free(pair.source)
    assert is_free(pair.target)
    assert system.client.refused("query", "vol1").code == "unknown-migration"


def test_both_sides_are_equal_in_every_byte_before_commit(system: System) -> None:
    """Once the application has stopped writing: whatever it wrote while regions were copied went to both."""
    pair = make_pair(system, size_bytes=16 << 20)
    system.set_up("vol1", pair.source, pair.target)
    with Application(system.export("vol1"), blocks=4096) as application:
        application.until_operations(50)
        system.client.command("sync", "vol1")
        system.client.until_state("vol1", "source-selected")
        report = application.stop()
    assert report.errors == []
    assert report.differences(pair.source) == []
    assert digest(pair.source) == digest(pair.target)


def test_two_migrations_at_once_do_not_meet(system: System) -> None:
    pairs = {name: make_pair(system, name, size_bytes=8 << 20) for name in ("vol1", "vol2")}
    for name, pair in pairs.items():
        system.set_up(name, pair.source, pair.target)
    with (
        Application(system.export("vol1"), seed=1, blocks=1024) as first,
        Application(system.export("vol2"), seed=2, blocks=1024) as second,
    ):
        for verb in ("sync", "select-target", "commit"):
            for name in pairs:
                system.client.command(verb, name)
            for name in pairs:
                if verb == "sync":
                    system.client.until_state(name, "source-selected")
            first.until_operations(50)
            second.until_operations(50)
        reports = {"vol1": first.stop(), "vol2": second.stop()}
    for name, report in reports.items():
        assert report.errors == []
        assert report.differences(pairs[name].target) == []
    assert digest(pairs["vol1"].target) != digest(pairs["vol2"].target)


def test_second_attempt_after_abort_is_numbered_and_copies_anew(system: System, pair: Pair) -> None:
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("sync", "vol1")
    system.client.until_state("vol1", "source-selected")
    operator(system, "abort", "vol1", "--yes")
    status = system.client.until("vol1", lambda each: each["state"] == "setup" and not each["error_flag"])
    assert status["attempt"] == 1
    in_target = digest(pair.target)
    with Application(system.export("vol1")) as application:  # the target misses all of this
        application.until_operations(200)
        report = application.stop()
    assert digest(pair.target) == in_target
    assert digest(pair.source) != in_target
    assert system.client.command("sync", "vol1")["attempt"] == 2
    system.client.until_state("vol1", "source-selected")
    assert report.differences(pair.target) == []
    assert digest(pair.source) == digest(pair.target)


@pytest.mark.parametrize("state", ["syncing", "source-selected", "target-selected"])
def test_abort_under_writes_leaves_the_source_whole(system: System, pair: Pair, state: str) -> None:
    system.set_up("vol1", pair.source, pair.target)
    with Application(system.export("vol1"), blocks=1024) as application:
        system.client.command("pause", "vol1")
        system.client.command("sync", "vol1")
        if state != "syncing":
            system.client.command("resume", "vol1")
            system.client.until_state("vol1", "source-selected")
        if state == "target-selected":
            system.client.command("select-target", "vol1")
        application.until_operations(100)
        system.client.command("abort", "vol1")
        application.until_operations(100)
        report = application.stop()
    assert report.errors == []
    assert report.differences(pair.source) == []
    system.client.until("vol1", lambda each: not each["error_flag"], what="a clear flag")
    assert system.client.query("vol1")["faults"] == []


def test_cleanup_with_a_client_is_refused_naming_it_unless_told_to_disconnect(
    system: System, pair: Pair
) -> None:
    system.set_up("vol1", pair.source, pair.target)
    with Application(system.export("vol1")) as application:
        application.until_operations(10)
        peer = system.client.query("vol1")["connections"][0]["peer"]
        done = system.cutover("cleanup", "vol1", "--yes")
        assert done.returncode == 1
        assert "clients connected" in done.stderr
        assert peer in " ".join(done.stderr.split())
        application.until_operations(10)
        done = system.cutover("cleanup", "vol1", "--yes", "--disconnect")
        assert done.returncode == 0, done.stderr
        report = application.stop()
    assert report.errors != [], "the client was told nothing"
    assert report.differences(pair.source) == []
    assert is_free(pair.source)


def test_name_that_is_used_again_gets_a_new_uuid(system: System, pair: Pair) -> None:
    first = system.set_up("vol1", pair.source, pair.target)["uuid"]
    system.client.command("cleanup", "vol1")
    assert not system.witness("vol1").exists()
    second = system.set_up("vol1", pair.source, pair.target)["uuid"]
    assert first != second
    assert system.client.query("vol1")["attempt"] == 0
    assert system.client.words("vol1")[-3:] == ["state setup", "tombstone", "state setup"]


@pytest.mark.needs_root
def test_block_devices_go_through_with_direct_io(system: System) -> None:
    pair = make_pair(system, size_bytes=16 << 20)
    with loop_device(pair.source) as source, loop_device(pair.target) as target:
        system.set_up("vol1", source, target)
        assert system.client.query("vol1")["io_engine"].endswith(" direct")
        with Application(system.export("vol1"), blocks=2048) as application:
            system.client.command("sync", "vol1")
            system.client.until_state("vol1", "source-selected")
            application.until_operations(100)
            system.client.command("select-target", "vol1")
            application.until_operations(100)
            system.client.command("commit", "vol1")
            application.until_operations(100)
            report = application.stop()
        assert report.errors == []
        system.clean_up("vol1")
        assert is_free(source)
        assert is_free(target)
        assert report.differences(target) == []
