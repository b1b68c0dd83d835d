"""A whole system whose parts are killed and started again: services, the NATS server, or everything at one instant."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.acceptance.system.background import Background
from tests.acceptance.system.whole_system import SERVICES, System

NATS = "nats"
ALL_SERVICES = "services"
EVERYTHING = "everything"
VICTIMS = (*SERVICES, NATS, ALL_SERVICES, EVERYTHING)


def parts_of(victim: str) -> tuple[str, ...]:
    """What dies with a victim."""
    match victim:
        case "services":
            return SERVICES
        case "everything":
            return (*SERVICES, NATS)
        case _:
            return (victim,)


class Machine(System):
    """A system, and what can happen to it."""

    is_spoiled = False  # something was found on it that cannot be cleaned up, or should be looked at

    def pid_of(self, part: str) -> int:
        return self.nats_pid if part == NATS else self.pid(part)

    def runs(self, part: str) -> bool:
        return self.is_nats_running if part == NATS else self.is_running(part)

    def freeze(self, victim: str) -> None:
        """SIGSTOP of all its parts that run."""
        self._signal(victim, signal.SIGSTOP)

    def kill(self, victim: str) -> None:
        """SIGKILL of all its parts: first stopped together, so that none sees another die."""
        self.freeze(victim)
        self._signal(victim, signal.SIGKILL)
        for part in parts_of(victim):
            if part == NATS:
                self.kill_nats()  # of one that is dead: only its end of the pipe
            else:
                self.until_gone(part)

    def _signal(self, victim: str, number: signal.Signals) -> None:
        for part in parts_of(victim):
            with suppress(ProcessLookupError):  # it has died by itself, and nobody has been told yet
                if self.runs(part):
                    os.kill(self.pid_of(part), number)

    def terminate(self, victim: str) -> dict[str, int]:
        """SIGTERM of all its services at once, and of the server after them; the exit status of each service."""
        parts = parts_of(victim)
        services = [part for part in parts if part != NATS]
        for service in services:
            self.ask_to_stop(service)
        statuses = {service: self.until_gone(service) for service in services}
        if NATS in parts:
            self.stop_nats()
        return statuses

    def mend(self) -> None:
        """Have everything run and serve again."""
        if not self.is_nats_running:
            self.start_nats()
        super().mend()


@contextmanager
def running_machine(background: Background, **host_options: object) -> Iterator[Machine]:
    """One in a folder of its own, with a short path: a Unix socket's holds 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="cutover-", dir="/tmp"))
    machine = Machine(folder, background, **host_options)
    try:
        machine.start()
        yield machine
    finally:
        machine.close()
        shutil.rmtree(folder)
