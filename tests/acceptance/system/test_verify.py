"""`verify` and `commit --verify` on the real system: what is equal, what differs, and what happens beside it."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.devices import MIB, digest, empty_file, loop_device
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.plain_client import Json, Refused
from tests.acceptance.system.whole_system import CLONING, System
from tests.integration.devices.servers import nbdkit

BLOCK = 4096
HOLE = b"\0" * MIB


def bring(system: System, pair: Pair, state: str = "source-selected") -> None:
    """A migration in one of the states in which both sides are in sync."""
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("sync", "vol1")
    system.client.until_state("vol1", "source-selected")
    if state == "target-selected":
        system.client.command("select-target", "vol1")


def write_behind(device: Path, offset: int, content: bytes) -> None:
    """Write to a device as nobody should who goes round the volume."""
    with device.open("r+b") as file:
        os.pwrite(file.fileno(), content, offset)


def flip_behind(device: Path, offset: int) -> None:
    with device.open("rb") as file:
        byte = os.pread(file.fileno(), 1, offset)
    write_behind(device, offset, bytes([byte[0] ^ 1]))


def verified(system: System) -> Json:
    """What `cutover verify --json` tells in the end."""
    done = system.cutover("verify", "vol1", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    status: Json = json.loads(done.stdout)
    return status


@pytest.mark.parametrize("state", ["source-selected", "target-selected"])
def test_live_volume_is_equal(system: System, pair: Pair, state: str) -> None:
    bring(system, pair, state)
    with Application(system.export("vol1")) as application:
        application.until_operations(100)
        for _ in range(3):
            status = verified(system)
            assert status["state"] == state
            assert status["verification"]["outcome"] == "equal"
            assert status["verification"]["compared_bytes"] == status["size_bytes"]
        application.until_operations(50)
        report = application.stop()
    assert report.errors == []
    assert report.differences(pair.target) == []


def test_flipped_byte_is_found_and_forbids_the_commit(system: System, pair: Pair) -> None:
    bring(system, pair, "target-selected")
    flip_behind(pair.target, 2 * MIB + 3 * BLOCK + 17)
    with Application(system.export("vol1"), blocks=64) as application:
        application.until_operations(50)
        done = system.cutover("verify", "vol1")
        assert done.returncode == 1
        assert done.stderr.startswith("different: ")
        system.client.until_state("vol1", "setup")
        application.until_operations(50)  # it goes on against the source
        assert application.stop().errors == []
    fault = system.client.query("vol1")["faults"][0]
    assert {key: fault[key] for key in ("side", "operation", "cause", "offset", "length")} == {
        "side": "target", "operation": "verify", "cause": "differs",
        "offset": 2 * MIB + 3 * BLOCK, "length": BLOCK,
    }  # fmt: skip
    with pytest.raises(Refused) as refused:
        system.client.command("commit", "vol1")
    assert refused.value.code == "not-allowed"


def test_commit_with_verify_is_not_done_where_something_differs(system: System, pair: Pair) -> None:
    bring(system, pair, "target-selected")
    flip_behind(pair.target, 4 * MIB - 1)  # the very last
    done = system.cutover("commit", "vol1", "--verify", "--yes")
    assert done.returncode == 1, done.stdout
    assert f"{4 * MIB - BLOCK}" in done.stderr
    status = system.client.until_state("vol1", "setup")
    assert status["authority"] == "source"
    records = [
        recorded.record for recorded in system.client.journal("vol1")
    ]  # of all that had the name before, too
    assert "intent" not in {record["kind"] for record in records if record["uuid"] == status["uuid"]}


def test_commit_with_verify_is_done_where_nothing_differs(system: System, pair: Pair) -> None:
    bring(system, pair, "target-selected")
    with pytest.raises(Refused) as refused:
        system.client.command("commit", "vol1", verified=True)
    assert refused.value.code == "not-verified"
    done = system.cutover("commit", "vol1", "--verify", "--yes")
    assert done.returncode == 0, done.stderr
    status = system.client.query("vol1")
    assert status["state"] == "committed"
    assert status["verified_at"]


def test_holes_compare_as_zeroes(system: System, pair: Pair) -> None:
    """Zeroes that were written on one side only, a hole that was punched on one side only."""
    for part in (pair.source, pair.target):
        part.unlink()
    source, target = empty_file(pair.source, 8 * MIB), empty_file(pair.target, 8 * MIB)
    write_behind(source, 2 * MIB, HOLE)
    bring(system, pair)
    write_behind(target, 5 * MIB, HOLE)
    punched = subprocess.run(
        ["fallocate", "--punch-hole", "--offset", str(2 * MIB), "--length", str(MIB), str(target)],
        check=False,
    )
    assert punched.returncode == 0
    verified(system)
    write_behind(target, 6 * MIB + BLOCK, b"x")
    assert system.cutover("verify", "vol1").returncode == 1


def test_trimmed_ranges_compare_as_zeroes(system: System, pair: Pair) -> None:
    bring(system, pair)
    commands = ("discard 0 1M", "write -z -u 1M 64k", "discard 2097152 4096", "write -P 7 3M 4k", "flush")
    arguments = [each for command in commands for each in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-t", "writeback", "-f", "raw", *arguments, system.export("vol1")],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    verified(system)
    assert digest(pair.source) == digest(pair.target)


@pytest.mark.needs_root
def test_block_device_is_compared_past_the_page_cache(system: System, pair: Pair) -> None:
    with loop_device(pair.target) as target:
        bring(system, Pair(pair.source, target))
        verified(system)
        flip_behind(pair.target, MIB + 5)  # under the device itself
        done = system.cutover("verify", "vol1")
        assert done.returncode == 1, done.stdout
        assert f"at {MIB}" in done.stderr
        system.client.until_state("vol1", "setup")
        system.clean_up("vol1")


def test_comparison_is_throttled_paused_and_joined(system: System) -> None:
    pair = make_pair(system, size_bytes=16 * MIB)
    bring(system, pair)
    system.client.command("throttle", "vol1", bytes_per_s=MIB)
    first = system.client.command("verify", "vol1")
    assert first["verification"]["outcome"] is None
    system.client.until("vol1", lambda status: status["verification"]["compared_bytes"] > 0)
    system.client.command("pause", "vol1")
    second = system.client.command("verify", "vol1")
    assert second["verification"]["id"] == first["verification"]["id"]
    assert "under way already" in second["message"]
    assert second["verification"]["compared_bytes"] < 16 * MIB
    system.client.command("select-target", "vol1")  # goes on beside it
    system.client.command("throttle", "vol1")
    system.client.command("resume", "vol1")
    assert verified(system)["verification"]["compared_bytes"] == 16 * MIB


def test_verification_survives_a_clean_restart_and_one_under_way_does_not(
    running: tuple[System, Pair],
) -> None:
    system, _pair = running
    system.client.command("sync", "vol1")
    system.client.until_state("vol1", "source-selected")
    at = verified(system)["verified_at"]
    system.client.command("pause", "vol1")
    system.client.command("verify", "vol1")
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)
    status = system.client.query("vol1")
    assert (status["state"], status["verified_at"], status["verification"]) == ("source-selected", at, None)
    system.client.command("resume", "vol1")
    verified(system)


@pytest.mark.parametrize("hanging", ["source", "target"])
def test_side_that_hangs_ends_the_comparison_after_the_timeout(
    own_system: Callable[..., System], hanging: str
) -> None:
    system = own_system(io_timeout_s=1.5)
    pair = make_pair(system)
    with nbdkit(
        pair.source.parent, "file", str(pair.source if hanging == "source" else pair.target)
    ) as server:
        uris = {"source": str(pair.source), "target": str(pair.target)} | {hanging: server.uri}
        system.client.command("setup", "vol1", **uris)
        system.client.command("sync", "vol1")
        system.client.until_state("vol1", "source-selected")
        server.stop_answering()
        done = system.cutover("verify", "vol1")
        assert done.returncode == 1
        assert done.stderr.startswith("incomplete: ")
        state = "setup" if hanging == "target" else "source-selected"
        status = system.client.until_state("vol1", state)
        system.client.until("vol1", lambda now: now["faults"])
        assert status["verified_at"] is None
        faults = system.client.query("vol1")["faults"]
        assert {(fault["side"], fault["cause"]) for fault in faults} == {(hanging, "timeout")}
        server.go_on()
        if hanging == "source":
            verified(system)
