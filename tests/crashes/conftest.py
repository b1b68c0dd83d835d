"""A machine of its own for the crashes: what dies is started again, and every case has its own migration."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.acceptance.system.background import Background
from tests.crashes.machine import Machine, running_machine

SHUTDOWN_TIMEOUT_S = 5.0  # what a stop without NATS takes


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    loop = Background()
    yield loop
    loop.close()


class Machines:
    """One machine at a time: the same for all cases, and a new one after a case that has failed."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._running = ExitStack()
        self._machine: Machine | None = None

    def current(self) -> Machine:
        if self._machine is None or self._machine.is_spoiled:
            self.close()
            self._machine = self._running.enter_context(
                running_machine(self._background, shutdown_timeout_s=SHUTDOWN_TIMEOUT_S)
            )
        return self._machine

    def close(self) -> None:
        self._running.close()
        self._machine = None


@pytest.fixture(scope="session")
def _machines(background: Background) -> Iterator[Machines]:
    machines = Machines(background)
    yield machines
    machines.close()


@pytest.fixture
def machine(_machines: Machines) -> Iterator[Machine]:
    """Everything runs at the beginning, and is mended and cleaned up at the end."""
    machine = _machines.current()
    yield machine
    if not machine.is_spoiled:
        machine.mend()
        machine.clean_up_all()
