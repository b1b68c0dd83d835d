"""How a service's process ends by itself: a refusal is a sentence, a defect has its traceback, both in the log's own form."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from shared.migration.refusals import Code, InvariantError, Refusal
from shared.process import run_service

async def serve(config, stop):
    {raising}

sys.exit(run_service("services.example", "An example.", serve))
"""


def ended(raising: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(raising=raising)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


REFUSAL = 'raise Refusal(Code.BUSY, "The state directory is in use.")'
DEFECT = 'raise InvariantError("a forged\\\\nline")'


@pytest.mark.parametrize("raising", [REFUSAL, DEFECT], ids=["refusal", "defect"])
def test_it_ends_with_status_1_and_a_line_that_says_why(raising: str) -> None:
    status, said = ended(raising, CUTOVER_LOG_FORMAT="json")
    assert status == 1
    lines: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    (line,) = lines
    assert line["service"] == "example"
    if raising is REFUSAL:
        assert line["message"] == "services.example stops: The state directory is in use."
        assert "error" not in line
    else:
        assert line["level"] == "critical"
        assert line["error"]["type"].endswith("InvariantError") or "ExceptionGroup" in line["error"]["type"]
        assert "a forged\\nline" in line["error"]["traceback"]


@pytest.mark.parametrize("name", ["fault_recording", "state_control", "startup", "write_cloning"])
def test_service_that_waits_for_nats_stops_at_once_and_is_done(name: str, tmp_path: Path) -> None:
    """Cause: the stop waited for the attempt to connect, and was taken for its failure. Failing: 4 s, and status 1."""
    host = {"CUTOVER_HOST_NAME": "h1", "CUTOVER_HOST_STATE_DIR": str(tmp_path)}
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        subprocess.Popen(
            [sys.executable, "-m", f"services.{name}"],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "CUTOVER_NATS_URL": f"nats://127.0.0.1:{silent.getsockname()[1]}",
                **host,
            },
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        silent.settimeout(30)
        connection, _ = silent.accept()
        began_s = time.monotonic()
        process.terminate()
        _, said = process.communicate(timeout=30)
        connection.close()
    assert process.returncode == 0, said
    assert "stopped before it began" in said
    assert time.monotonic() - began_s < 2


def test_host_with_an_account_that_nobody_has_ends_before_nats_answers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.write_cloning"],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "CUTOVER_NATS_URL": "nats://127.0.0.1:9",
            "CUTOVER_HOST_NAME": "h1",
            "CUTOVER_HOST_STATE_DIR": str(tmp_path),
            "CUTOVER_NBD_SOCKET_GROUP": "nosuch",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "nbd.socket_group: there is no group named 'nosuch'" in done.stderr


def test_no_line_of_a_traceback_stands_at_the_margin() -> None:
    status, said = ended(DEFECT)
    first, *below = said.splitlines()
    assert status == 1
    assert "CRITICAL example: services.example ends by a defect" in first
    assert below
    assert all(line.startswith("    | ") for line in below)


def test_what_is_below_the_level_is_not_told() -> None:
    assert ended("return 0", CUTOVER_LOG_LEVEL="warning") == (0, "")
    assert "has stopped" in ended("return 0")[1]
