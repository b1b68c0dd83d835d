"""The monitor's replies and events are told apart, in whatever order they come."""

import io
import json

import pytest

from benchmarks.qmp import Monitor

GREETING: dict[str, object] = {"QMP": {}}
DONE: dict[str, object] = {"return": {}}
READY = {"event": "BLOCK_JOB_READY", "data": {"device": "m"}}


def monitor(*messages: object) -> tuple[Monitor, io.BytesIO]:
    lines = [GREETING, DONE, *messages]  # DONE answers qmp_capabilities
    commands = io.BytesIO()
    return Monitor(
        io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines)), commands
    ), commands


def test_an_event_before_a_reply_is_kept_for_whoever_waits_for_it() -> None:
    daemon, _ = monitor(READY, DONE)
    assert daemon.call("blockdev-mirror") == {}
    assert daemon.wait_for("BLOCK_JOB_READY") == READY


def test_arguments_are_named_as_qemu_names_them() -> None:
    daemon, commands = monitor(DONE)
    daemon.call("blockdev-mirror", copy_mode="write-blocking")
    sent = json.loads(commands.getvalue().splitlines()[-1])
    assert sent == {"execute": "blockdev-mirror", "arguments": {"copy-mode": "write-blocking"}}


def test_a_refusal_is_an_error() -> None:
    daemon, _ = monitor({"error": {"class": "GenericError", "desc": "no such node"}})
    with pytest.raises(RuntimeError, match="no such node"):
        daemon.call("blockdev-mirror")


def test_a_job_that_fails_is_not_waited_for() -> None:
    daemon, _ = monitor({"event": "BLOCK_JOB_ERROR", "data": {}})
    with pytest.raises(RuntimeError, match="BLOCK_JOB_ERROR"):
        daemon.wait_for("BLOCK_JOB_READY")


def test_a_daemon_that_ends_is_not_waited_for() -> None:
    daemon, _ = monitor()
    with pytest.raises(RuntimeError, match="closed"):
        daemon.wait_for("BLOCK_JOB_READY")
