"""The whole real system, once for the tests that leave it as they found it, and of their own for those that break it."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.system.background import Background
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.whole_system import System


@contextmanager
def _folder() -> Iterator[Path]:
    """With a short path: a Unix socket's holds 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="cutover-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(background: Background, **host_options: object) -> Iterator[System]:
    with _folder() as folder:
        system = System(folder, background, **host_options)
        try:
            yield system.start()
        finally:
            system.close()


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    loop = Background()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def _shared(background: Background) -> Iterator[System]:
    with _running(background) as system:
        yield system


@pytest.fixture
def system(_shared: System) -> Iterator[System]:
    """A system that many tests share: a test must not stop or kill anything. Its migrations end with it."""
    yield _shared
    for migration in _shared.client.ask("cutover.control.list").accepted()["migrations"]:
        _shared.clean_up(migration["name"])


@pytest.fixture
def own_system(background: Background) -> Iterator[Callable[..., System]]:
    """Starts a system for this test alone; its keys are those of the section `[host]`."""
    with ExitStack() as running:
        yield lambda **host_options: running.enter_context(_running(background, **host_options))


@pytest.fixture
def pair(system: System, request: pytest.FixtureRequest) -> Pair:
    """A source with data and an empty target on the shared system."""
    return make_pair(system, request.node.name)
