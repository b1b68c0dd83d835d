"""How a service's process ends by itself: a refusal is a sentence, a defect has its traceback, both in the log's own form."""

import json
import subprocess
import sys
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
