"""Leaves out the tests that this machine cannot run, and says so.

A test that needs something that a machine may rightly lack carries a marker; where it is lacking, the tests with that
marker are deselected and the end of the run has a sentence for it. Deselected, not skipped, so that nobody takes the
closing line for more than it is; and CI's `--nothing-left-out` fails on it. With pytest-xdist every worker deselects, and tells
the controller, which has the last word.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

_NATS_CLI = ".cache/nats-cli/*/nats"  # built by tools/nats-cli
_COMPOSE_CLI = ".cache/compose-cli/*/docker-compose"  # unpacked by tools/compose-cli
_LEFT_OUT = "cutover_left_out_counts"  # in what a worker tells the controller
_ASYNCAPI_CHECK = ".cache/asyncapi/*/check.cjs"  # installed by tools/asyncapi-parser


class Need(NamedTuple):
    """A marker, what is true where its tests can run, and the sentence for where it is not."""

    marker: str
    is_met: Callable[[Path], bool]
    sentence: str


def find_nats_cli(root: Path) -> Path | None:
    """The stock `nats` program: the pinned one that `make test` builds, or none. Never just any that is on PATH."""
    return _last(root.glob(_NATS_CLI))


def find_compose_cli(root: Path) -> Path | None:
    """Docker Compose: the pinned one that `make test` unpacks, or none. Never just any that is on PATH."""
    return _last(root.glob(_COMPOSE_CLI))


def _last(built: Iterable[Path]) -> Path | None:
    return max(built, default=None)


def find_asyncapi_check(root: Path) -> Path | None:
    """The program that has npm's parser judge a document: the pinned one that `make test` installs, or none."""
    return _last(root.glob(_ASYNCAPI_CHECK)) if shutil.which("node") else None


def find_promtool(root: Path) -> Path | None:
    """Prometheus's own checker: the one that `make test` unpacks, or none."""
    unpacked = root / ".cache/promtool/promtool"
    return unpacked if unpacked.exists() else None


NEEDS = (
    Need(
        "asyncapi_parser",
        lambda root: find_asyncapi_check(root) is not None,
        "npm's AsyncAPI parser is not there: `make test` installs it where there is Node",
    ),
    Need(
        "compose_cli",
        lambda root: find_compose_cli(root) is not None,
        "Docker Compose is not there: `make test` unpacks it from Debian's package",
    ),
    Need(
        "nats_cli",
        lambda root: find_nats_cli(root) is not None,
        "the stock `nats` program is not there: `make test` builds it where there is a Go toolchain",
    ),
    Need(
        "promtool",
        lambda root: find_promtool(root) is not None,
        "`promtool` is not there: `make test` unpacks it from Debian's prometheus package",
    ),
    Need("needs_root", lambda _root: os.geteuid() == 0, "loop devices and mounts need root"),
)


class LeftOut:
    """Deselects what cannot run here, and remembers it for the summary."""

    def __init__(self, root: Path) -> None:
        self._unmet = [need for need in NEEDS if not need.is_met(root)]
        self._counts: dict[str, int] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Take out the tests whose need is not met; the first unmet one is counted."""
        kept: list[pytest.Item] = []
        left_out: list[pytest.Item] = []
        for item in items:
            need = next((need for need in self._unmet if item.get_closest_marker(need.marker)), None)
            if need is None:
                kept.append(item)
            else:
                left_out.append(item)
                self._counts[need.marker] = self._counts.get(need.marker, 0) + 1
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = kept

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """As a worker, tell the controller."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[_LEFT_OUT] = self._counts

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Hear from a worker what it left out; every one leaves out the same."""
        self._counts.update(getattr(node, "workeroutput", {}).get(_LEFT_OUT, {}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was left out, and why."""
        for need in NEEDS:
            if count := self._counts.get(need.marker):
                terminalreporter.write_line(
                    f"LEFT OUT: {count} tests marked {need.marker}: {need.sentence}.", yellow=True
                )


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin for this run."""
    config.pluginmanager.register(LeftOut(config.rootpath), "left_out")


@pytest.fixture(scope="session")
def promtool(pytestconfig: pytest.Config) -> Path:
    """Prometheus's checker; for tests marked `promtool`."""
    program = find_promtool(pytestconfig.rootpath)
    assert program is not None, "a test that uses this fixture carries the marker `promtool`"
    return program


@pytest.fixture(scope="session")
def nats_cli(pytestconfig: pytest.Config) -> Path:
    """The stock `nats` program; for tests marked `nats_cli`."""
    program = find_nats_cli(pytestconfig.rootpath)
    assert program is not None, "a test that uses this fixture carries the marker `nats_cli`"
    return program


@pytest.fixture(scope="session")
def compose_cli(pytestconfig: pytest.Config) -> Path:
    """The judge of compose files; for tests marked `compose_cli`."""
    program = find_compose_cli(pytestconfig.rootpath)
    assert program is not None, "a test that uses this fixture carries the marker `compose_cli`"
    return program


@pytest.fixture(scope="session")
def asyncapi_check(pytestconfig: pytest.Config) -> Path:
    """The program that judges an AsyncAPI document; for tests marked `asyncapi_parser`."""
    program = find_asyncapi_check(pytestconfig.rootpath)
    assert program is not None, "a test that uses this fixture carries the marker `asyncapi_parser`"
    return program
