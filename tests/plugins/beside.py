"""Runs long computations beside the tests, from the moment when the tests are known: the campaign, the trials of the mutations.

They need processors and nothing else, while most of the tests wait for processes, devices and time-outs. So they run at the
lowest priority, and the tests that are about them, some of the last, wait for what is left.

With pytest-xdist the tests run in several workers, and it is their controller that starts a computation and ends it. What it
prints is in a file of the run's folder, which every worker is told of, and its exit status is in another. Whoever wants the
result waits for a lock on a third: its owner lets go of it when the computation has ended, and the kernel does if the owner dies.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

CAMPAIGN = "campaign"
TRIALS = "trials"
CAMPAIGN_TEST = "test_no_seed_of_the_simulation_goes_wrong_and_everything_is_reached"
TRIAL_TEST = "test_mutation_is_found"

_FOLDER = "cutover_beside"  # the run's folder, in what the controller tells its workers


@dataclass(frozen=True, slots=True)
class Place:
    """Where a computation leaves its result."""

    folder: Path
    name: str

    def file(self, what: str) -> Path:
        """One of its files."""
        return self.folder / f"{self.name}.{what}"

    def result(self) -> tuple[int, str]:
        """Wait for its exit status, and what it has printed."""
        with self.file("lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        return int(self.file("status").read_text()), self.file("printed").read_text()


class Computation:
    """A program at the lowest priority, of its own process group."""

    def __init__(self, place: Place, root: Path, arguments: Sequence[str]) -> None:
        """Start it."""
        self._place = place
        lock = place.file("lock").open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
        with place.file("printed").open("wb") as printed:
            self._process = subprocess.Popen(
                ["nice", "-n", "19", sys.executable, *arguments],
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its own processes are to end with it
            )
        self._waiting = threading.Thread(target=self._wait, args=(lock,), name=place.name)
        self._waiting.start()

    def _wait(self, lock: object) -> None:
        with closing(lock):  # type: ignore[type-var]
            self._place.file("status").write_text(str(self._process.wait()))

    def end(self) -> None:
        """Leave nothing behind."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._waiting.join()


class Owner:
    """Starts what the tests of a run are about, once they are known."""

    def __init__(self, root: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cutover-beside-"))
        self._root = root
        self._running: dict[str, Computation] = {}

    def start_for(self, tests: Iterable[str]) -> None:
        """Given the ids of all tests, start what they will wait for."""
        names = [test.rpartition("::")[2] for test in tests]
        trials = [
            name.removeprefix(f"{TRIAL_TEST}[").removesuffix("]")
            for name in names
            if name.startswith(f"{TRIAL_TEST}[")
        ]
        if CAMPAIGN_TEST in names:
            self._start(CAMPAIGN, ["-m", "tests.simulation"])
        if trials:
            self._start(TRIALS, ["-m", "tests.simulation.mutations.trial", "--json", *trials])

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        if name not in self._running:
            self._running[name] = Computation(Place(self.folder, name), self._root, arguments)

    # ------------------------------------------------------------------ hooks

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Where one process runs the tests itself."""
        if not session.config.option.collectonly:
            self.start_for(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: object) -> None:
        """A worker is about to start."""
        node.workerinput[_FOLDER] = str(self.folder)  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """A worker knows all the tests, like every other; none is run before all do."""
        self.start_for(ids)

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind."""
        for computation in self._running.values():
            computation.end()
        shutil.rmtree(self.folder)


def pytest_configure(config: pytest.Config) -> None:
    """Own the computations, unless this is one of several workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Owner(config.rootpath), _FOLDER)


def _place(config: pytest.Config, name: str) -> Place:
    owner = config.pluginmanager.get_plugin(_FOLDER)
    folder = owner.folder if owner is not None else Path(config.workerinput[_FOLDER])  # type: ignore[attr-defined]
    return Place(folder, name)


@pytest.fixture(scope="session")
def campaign(pytestconfig: pytest.Config) -> tuple[int, str]:
    """The campaign's exit status, and what it has printed; for `CAMPAIGN_TEST`."""
    return _place(pytestconfig, CAMPAIGN).result()


@pytest.fixture(scope="session")
def trials(pytestconfig: pytest.Config) -> tuple[int, str]:
    """The same of the trials; for `TRIAL_TEST`."""
    return _place(pytestconfig, TRIALS).result()
