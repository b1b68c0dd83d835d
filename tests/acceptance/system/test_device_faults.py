"""Devices that fail while everything runs: the target leaves, the authority moves or stays, and the application goes on."""

import subprocess

import pytest

from tests.acceptance.system.application import PYTHON, Application
from tests.acceptance.system.conftest import IO_TIMEOUT_S
from tests.acceptance.system.devices import MIB, digest, run
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.plain_client import Json
from tests.acceptance.system.remote import faulty
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import HOST, System
from tests.integration.devices.servers import nbdkit

STATES = ("syncing", "source-selected", "target-selected")

# What the application does (qemu-io), which operation of the server fails for it, and what the fault log calls it.
COMMANDS = {
    "write": ("write 2M 4k", "pwrite", "write"),
    "zero": ("write -z 2M 64k", "zero", "zero"),
    "trim": ("discard 2M 64k", "zero", "trim"),
    "flush": ("flush", "flush", "flush"),
}


@pytest.fixture
def system(impatient_system: System) -> System:
    return impatient_system


@pytest.fixture
def pair(system: System) -> Pair:
    return make_pair(system)


def qemu_io(system: System, command: str) -> "subprocess.CompletedProcess[str]":
    """One command of an application, without FUA."""
    return subprocess.run(
        ["qemu-io", "-t", "writeback", "-d", "unmap", "-f", "raw", "-c", command, system.export("vol1")],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def faults_of(system: System) -> list[Json]:
    faults: list[Json] = system.client.ask("cutover.control.faults.vol1").accepted()["faults"]
    return faults


def until_in_setup(system: System) -> Json:
    return system.client.until(
        "vol1",
        lambda each: each["state"] == "setup" and not each["error_flag"] and not each["journal_pending"],
        what="setup",
    )


# ------------------------------------------------------------------------------------------------------------ the target


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("what", COMMANDS)
def test_target_that_fails_an_operation_leaves_and_the_application_goes_on(
    system: System, pair: Pair, state: str, what: str
) -> None:
    client = system.client
    command, operation, logged = COMMANDS[what]
    with faulty(pair.target, operation) as target:
        system.set_up("vol1", pair.source, target.uri)
        bring_to(system, "vol1", state)
        length = len(client.journal("vol1"))
        with Application(system.export("vol1"), blocks=64) as application:
            application.until_operations(20)
            target.fail()
            done = qemu_io(system, command)
            assert done.returncode == 0, done.stdout + done.stderr
            until_in_setup(system)
            application.until_operations(20)
            report = application.stop()
        target.mend()
        assert report.errors == []
        assert report.worst_ms < 2 * IO_TIMEOUT_S * 1000
        assert report.differences(pair.source) == []
        fault = faults_of(system)[0]
        assert fault["operation"] in ({logged, "write"} if operation == "pwrite" else {logged, "zero"})
        assert {key: fault[key] for key in ("side", "state", "cause", "errno", "host", "attempt")} == {
            "side": "target", "state": state, "cause": "EIO", "errno": 5, "host": HOST, "attempt": 1,
        }  # fmt: skip
        assert fault["detected_at"] <= fault["recorded_at"]
        assert (fault["offset"] is None, fault["length"] is None) == (what == "flush", what == "flush")
        words = client.words("vol1")[length:]
        assert words[0] == "fault target"
        assert [word for word in words if word != "fault target"] == ["state setup", "flag-clear"]
        client.command("resume", "vol1")
        client.command("sync", "vol1")
        client.until_state("vol1", "source-selected")
        client.command("select-target", "vol1")
    assert digest(pair.source) == digest(pair.target)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_target_that_fails_or_is_full_while_it_is_copied_to(system: System, pair: Pair, error: str) -> None:
    client = system.client
    with faulty(pair.target, "pwrite", error) as target:
        system.set_up("vol1", pair.source, target.uri)
        client.command("throttle", "vol1", bytes_per_s=2 * MIB)
        client.command("sync", "vol1")
        client.until("vol1", lambda status: status["synced_bytes"] > 0)
        target.fail()
        until_in_setup(system)
        target.mend()
    fault = faults_of(system)[0]
    assert (fault["side"], fault["operation"], fault["cause"]) == ("target", "write", error)
    assert fault["length"] > 0


def test_read_that_the_target_fails_is_answered_by_the_source(system: System, pair: Pair) -> None:
    with faulty(pair.target, "pread") as target:
        system.set_up("vol1", pair.source, target.uri)
        bring_to(system, "vol1", "target-selected")
        expected = pair.source.read_bytes()[MIB : MIB + 4096]
        target.fail()
        copy = pair.source.with_suffix(".read")
        run("nbdcopy", "--connections=1", system.export("vol1"), str(copy))
        until_in_setup(system)
        target.mend()
    assert copy.read_bytes()[MIB : MIB + 4096] == expected
    assert digest(copy) == digest(pair.source)
    fault = faults_of(system)[0]
    assert (fault["side"], fault["operation"], fault["cause"]) == ("target", "read", "EIO")
    assert (fault["offset"] is not None, fault["state"]) == (True, "target-selected")


def test_latency_of_a_target_that_hangs_is_bounded_once_and_never_again(system: System, pair: Pair) -> None:
    """The second write after the first has been given up goes to the source alone."""
    with faulty(pair.target, "pwrite") as target:
        system.set_up("vol1", pair.source, target.uri)
        bring_to(system, "vol1", "target-selected")
        with Application(system.export("vol1"), blocks=64) as application:
            application.until_operations(50)
            target.server.stop_answering()
            until_in_setup(system)
            application.until_operations(300)
            report = application.stop()
        target.server.go_on()
    assert report.errors == []
    slow = [each for each in (report.worst_ms, report.p99_ms) if each > IO_TIMEOUT_S * 1000 / 2]
    assert slow == [report.worst_ms], "more than one of a hundred waited"
    assert report.worst_ms < 2 * IO_TIMEOUT_S * 1000


# What it asks for is answered in whichever order; it says how long the flush took.
DURABLE_WRITE_AND_FLUSH = """
import nbd, sys, time
client = nbd.NBD()
client.connect_uri(sys.argv[1])
began = time.monotonic()
write = client.aio_pwrite(bytes(4096), 2 << 20, flags=nbd.CMD_FLAG_FUA)
flush = client.aio_flush()
while not client.aio_command_completed(flush):
    client.poll(-1)
print(time.monotonic() - began)
while not client.aio_command_completed(write):
    client.poll(-1)
"""


def test_flush_that_a_hanging_durable_write_holds_is_answered_once_the_target_has_left(
    system: System, pair: Pair
) -> None:
    """The target is done with the flush at once, but of the two it is the write that might be told of a loss."""
    arm = pair.target.with_suffix(".armed")
    arm.touch()
    shell = (
        "thread_model=echo parallel", "can_write=exit 0", "can_flush=exit 0", "can_fua=echo native",
        f"get_size=stat -c %s {pair.target}", "flush=exit 0",
        f"pread=dd if={pair.target} skip=$4 count=$3 iflag=count_bytes,skip_bytes status=none",
        (f"pwrite=case $5 in *fua*) while [ -f {arm} ]; do sleep .05; done;; esac; "
         f"dd of={pair.target} seek=$4 conv=notrunc oflag=seek_bytes status=none"),
    )  # fmt: skip
    with nbdkit(pair.target.parent, "eval", *shell, name="target") as server:
        system.set_up("vol1", pair.source, server.uri)
        bring_to(system, "vol1", "target-selected")
        took_s = float(run(PYTHON, "-c", DURABLE_WRITE_AND_FLUSH, system.export("vol1")))
        until_in_setup(system)
        arm.unlink()
    assert took_s > IO_TIMEOUT_S / 2, "the flush was believed while the write was under way"
    assert took_s < 2 * IO_TIMEOUT_S
    fault = faults_of(system)[0]
    assert (fault["side"], fault["cause"]) == ("target", "timeout")


# ------------------------------------------------------------------------------------------------------------ the source


@pytest.mark.parametrize("operation", ["pwrite", "flush"])
def test_source_that_fails_in_target_selected_loses_the_authority(
    system: System, pair: Pair, operation: str
) -> None:
    client = system.client
    with faulty(pair.source, operation) as source:
        system.set_up("vol1", source.uri, pair.target)
        bring_to(system, "vol1", "target-selected")
        with Application(system.export("vol1"), blocks=64) as application:
            application.until_operations(20)
            source.fail()
            client.until(
                "vol1",
                lambda each: each["authority"] == "target" and not each["journal_pending"],
                what="the move",
            )
            application.until_operations(20)
            for command in ("abort", "select-source"):
                refusal = client.refused(command, "vol1")
                assert refusal.code == "not-allowed"
                assert "the target alone holds every acknowledged write" in refusal.message
            application.until_operations(20)
            client.command("commit", "vol1")
            report = application.stop()
        source.mend()
    assert report.errors == []
    assert report.differences(pair.target) == []
    fault = faults_of(system)[0]
    assert (fault["side"], fault["state"], fault["cause"]) == ("source", "target-selected", "EIO")
    assert fault["operation"] == ("write" if operation == "pwrite" else "flush")


def test_read_that_the_source_fails_in_sync_is_answered_by_the_target(system: System, pair: Pair) -> None:
    client = system.client
    with faulty(pair.source, "pread") as source:
        system.set_up("vol1", source.uri, pair.target)
        bring_to(system, "vol1", "source-selected")
        source.fail()
        copy = pair.source.with_suffix(".read")
        run("nbdcopy", "--connections=1", system.export("vol1"), str(copy))
        status = client.until("vol1", lambda each: each["faults"] and not each["journal_pending"])
        assert digest(copy) == digest(pair.target)
        assert status["state"] == "source-selected"
        assert {(each["side"], each["operation"], each["cause"]) for each in status["faults"]} == {
            ("source", "read", "EIO")
        }
        client.command("select-target", "vol1")
        refusal = client.refused("select-source", "vol1")
        assert "a source fault is recorded in this attempt" in refusal.message
        client.command("commit", "vol1")


@pytest.mark.parametrize("state", ["syncing", "source-selected"])
def test_write_that_the_source_fails_is_the_applications_error_and_both_sides_stay_equal(
    system: System, pair: Pair, state: str
) -> None:
    client = system.client
    with faulty(pair.source, "pwrite", "ENOSPC") as source:
        system.set_up("vol1", source.uri, pair.target)
        bring_to(system, "vol1", state)
        source.fail()
        done = qemu_io(system, "write -P 7 1M 64k")
        assert "No space left on device" in done.stdout + done.stderr
        source.mend()
        status = client.until("vol1", lambda each: each["faults"] and not each["journal_pending"])
        assert (status["state"], status["faults"][0]["side"]) == (state, "source")
        if state == "syncing":
            client.command("resume", "vol1")
            client.until("vol1", lambda each: each["synced_bytes"] == each["size_bytes"], what="all copied")
            client.command("abort", "vol1")
        else:
            client.command("select-target", "vol1")
    assert digest(pair.source) == digest(pair.target)


def test_flush_that_the_source_fails_fails_for_good_until_the_target_takes_over(
    system: System, pair: Pair
) -> None:
    client = system.client
    with faulty(pair.source, "flush") as source:
        system.set_up("vol1", source.uri, pair.target)
        bring_to(system, "vol1", "source-selected")
        assert qemu_io(system, "write -P 7 1M 64k").returncode == 0
        source.fail()
        assert qemu_io(system, "flush").returncode != 0
        source.mend()
        assert qemu_io(system, "flush").returncode != 0, "a flush was believed after one that failed"
        assert client.query("vol1")["state"] == "source-selected"
        client.command("select-target", "vol1")
        assert qemu_io(system, "flush").returncode == 0
        assert client.query("vol1")["authority"] == "target"
        client.command("commit", "vol1")
