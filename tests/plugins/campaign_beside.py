"""Runs the simulation's campaign beside the other tests, from the moment when they are known.

It needs processors and nothing else, while most of the other tests wait for processes, devices and time-outs. So it runs at the
lowest priority, and the test that is about it, one of the last, waits for what is left.
"""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

TEST = "test_no_seed_of_the_simulation_goes_wrong_and_everything_is_reached"


@dataclass(slots=True)
class CampaignBeside:
    """The campaign's process, and where it writes."""

    process: subprocess.Popen[bytes]
    written: IO[bytes]

    def result(self) -> tuple[int, str]:
        """Wait for its exit status, and what it has printed."""
        status = self.process.wait()
        return status, Path(self.written.name).read_text()


KEY = pytest.StashKey[CampaignBeside]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start it where its test is to run."""
    if session.config.option.collectonly or not any(item.name == TEST for item in session.items):
        return
    written = tempfile.NamedTemporaryFile(prefix="cutover-campaign-")  # noqa: SIM115 - closed when the run ends
    command = ["nice", "-n", "19", sys.executable, "-m", "tests.simulation"]
    process = subprocess.Popen(
        command,
        cwd=session.config.rootpath,
        stdout=written,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # its workers are to end with it
    )
    session.config.stash[KEY] = CampaignBeside(process, written)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave nothing behind."""
    beside = session.config.stash.get(KEY, None)
    if beside is not None:
        if beside.process.poll() is None:
            os.killpg(beside.process.pid, signal.SIGKILL)
            beside.process.wait()
        beside.written.close()
