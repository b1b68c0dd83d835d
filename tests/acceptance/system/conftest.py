"""The whole real system: shared where tests leave it as they found it, mended after those that stop or kill a part."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.acceptance.system.background import Background
from tests.acceptance.system.devices import MIB
from tests.acceptance.system.everything import Lived, live
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.remote import clean_up_all
from tests.acceptance.system.whole_system import System, running_system

IO_TIMEOUT_S = 1.5  # of the impatient system


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    loop = Background()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def _shared(background: Background) -> Iterator[System]:
    with running_system(background) as system:
        yield system


@pytest.fixture
def system(_shared: System) -> Iterator[System]:
    """A system that many tests share: a test must not stop or kill anything. Its migrations end with it."""
    yield _shared
    _shared.clean_up_all()


@pytest.fixture(scope="session")
def _stoppable(background: Background) -> Iterator[System]:
    with running_system(background) as system:
        yield system


@pytest.fixture
def stoppable_system(_stoppable: System) -> Iterator[System]:
    """A system whose services a test may stop, kill and freeze; what does not run afterwards is started again."""
    yield _stoppable
    _stoppable.mend()
    _stoppable.clean_up_all()


@pytest.fixture(scope="session")
def _impatient(background: Background) -> Iterator[System]:
    with running_system(background, io_timeout_s=IO_TIMEOUT_S, target_flush_interval_s=0.5) as system:
        yield system


@pytest.fixture
def impatient_system(_impatient: System) -> Iterator[System]:
    """One that gives up a device soon, for tests of devices that fail; its services may be stopped, too."""
    yield _impatient
    _impatient.mend()
    clean_up_all(_impatient)


@pytest.fixture(scope="session")
def lived(background: Background) -> Lived:
    """A life in which everything happens, and what is left of it; its services log as JSON."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CUTOVER_LOG_FORMAT", "json")
        with running_system(background) as system:
            left = live(system)
    return left


@pytest.fixture
def running(stoppable_system: System) -> tuple[System, Pair]:
    """A volume that was set up, `vol1`, on a system whose services may be stopped."""
    system = stoppable_system
    pair = make_pair(system, size_bytes=8 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    return system, pair


@pytest.fixture
def own_system(background: Background) -> Iterator[Callable[..., System]]:
    """Starts a system for this test alone; its keys are those of the section `[host]`."""
    with ExitStack() as running:
        yield lambda **host_options: running.enter_context(running_system(background, **host_options))


@pytest.fixture
def pair(system: System, request: pytest.FixtureRequest) -> Pair:
    """A source with data and an empty target on the shared system."""
    return make_pair(system, request.node.name)
