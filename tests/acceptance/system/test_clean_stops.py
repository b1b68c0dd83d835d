"""SIGTERM of the host in every state: a clean stop, known for one by the journal; the next start goes on where it was."""

import json
import subprocess

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.devices import MIB, digest
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, System

STATES = ("setup", "syncing", "source-selected", "target-selected", "committed")
CLONES = {"syncing", "source-selected", "target-selected"}


@pytest.mark.parametrize("state", STATES)
def test_clean_stop_clears_the_flag_and_the_next_start_resumes_the_state(
    running: tuple[System, Pair], state: str
) -> None:
    system, pair = running
    client = system.client
    with Application(system.export("vol1"), blocks=1024) as application:
        bring_to(system, "vol1", state)
        application.until_operations(100)
        before = client.query("vol1")
        assert client.is_flagged("vol1") is (state in CLONES)
        assert system.stop_service(CLONING) == 0
        report = application.stop()
    assert not client.is_flagged("vol1")
    assert "the stop was clean" in system.log(CLONING)
    assert report.differences(pair.target if state == "committed" else pair.source) == []
    if state in CLONES:
        assert client.words("vol1")[-1] == "flag-clear"
        if state != "syncing":  # there the target has only what was written since
            assert report.differences(pair.target) == []
        assert json.loads(system.witness("vol1").read_bytes())["witness"]["state"] == state

    system.start_service(CLONING)
    after = client.query("vol1")
    for key in ("uuid", "state", "attempt", "authority", "paused", "faults"):
        assert after[key] == before[key], key
    assert client.is_flagged("vol1") is (state in CLONES), "cloning goes on without the flag"
    if state in CLONES:
        assert client.words("vol1")[-2:] == ["flag-clear", "flag-set"]
    with Application(system.export("vol1"), seed=2, blocks=1024) as application:
        application.until_operations(100)
        if state == "setup":
            client.command("sync", "vol1")
        if state in {"setup", "syncing"}:
            client.command("resume", "vol1")
            client.until_state("vol1", "source-selected")
        if state not in {"target-selected", "committed"}:
            client.command("select-target", "vol1")
        if state != "committed":
            client.command("commit", "vol1")
        application.until_operations(100)
        second = application.stop()
    assert second.errors == []
    assert second.differences(pair.target) == []
    assert report.without(second).differences(pair.target) == []
    assert client.query("vol1")["faults"] == []


def test_every_stop_counts_as_a_run_and_a_throttle_is_kept(running: tuple[System, Pair]) -> None:
    system, _ = running
    system.client.command("throttle", "vol1", bytes_per_s=123456)
    run = system.host_status()["run"]
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)
    assert system.host_status()["run"] == run + 1
    assert system.client.query("vol1")["throttle_bytes_per_s"] == 123456


def test_stop_while_copying_at_full_speed_is_clean_and_copying_goes_on(
    stoppable_system: System,
) -> None:
    system = stoppable_system
    pair = make_pair(system, size_bytes=64 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("throttle", "vol1", bytes_per_s=32 * MIB)
    system.client.command("sync", "vol1")
    system.client.until("vol1", lambda status: status["synced_bytes"] > 8 * MIB)
    assert system.stop_service(CLONING) == 0
    system.client.refused("select-target", "vol1")
    system.start_service(CLONING)
    status = system.client.query("vol1")
    assert (status["state"], status["attempt"]) == ("syncing", 1)
    system.client.command("throttle", "vol1", bytes_per_s=None)
    system.client.until_state("vol1", "source-selected")
    assert digest(pair.source) == digest(pair.target)


def test_application_is_refused_with_eshutdown_and_not_with_silence(running: tuple[System, Pair]) -> None:
    """The export tells who is connected that it goes, and answers or refuses what was asked."""
    system, pair = running
    with Application(system.export("vol1")) as application:
        application.until_operations(50)
        assert system.stop_service(CLONING) == 0
        report = application.stop()
    assert report.errors != []
    assert report.differences(pair.source) == []


TAKES_NO_REPLY = """
import nbd, sys
handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
buffers = [nbd.Buffer(1 << 20) for _ in range(8)]
for buffer in buffers:
    handle.aio_pread(buffer, 0)
print("asked", flush=True)
sys.stdin.read()
"""


def test_client_that_takes_no_replies_does_not_spoil_the_stop(running: tuple[System, Pair]) -> None:
    """It is hung up on after a grace, during which nothing must stumble over the export that is being closed."""
    system, _ = running
    bring_to(system, "vol1", "source-selected")
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", TAKES_NO_REPLY, system.export("vol1")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"asked\n"
        assert system.stop_service(CLONING) == 0
        client.communicate(b"")
    assert "the stop was clean" in system.log(CLONING)
    assert "Traceback" not in system.log(CLONING)
