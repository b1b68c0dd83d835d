"""Lets a part of the system die at a moment: when a message goes by, or as it enters a system call."""

import queue
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nats.aio.msg import Msg

from tests.crashes.cases import Case, Moment
from tests.crashes.machine import Machine, parts_of

ATTACH_TIMEOUT_S = 10.0
MOMENT_TIMEOUT_S = 3.0  # a moment that does not come has passed by: the victim dies then, after the command
LOOK_S = 0.01


@contextmanager
def death(machine: Machine, case: Case) -> Iterator[None]:
    """Whatever begins within is overtaken by the victim's death; on leaving, the victim is dead."""
    if case.moment.syscall:
        with _traced(machine, case.victim, case.moment):
            yield
            until_dead(machine, case.victim)
    elif case.moment.messages:
        with machine.client.heard("cutover.>") as news:
            yield
            until_message(news, case.moment.messages)
            machine.kill(case.victim)
    else:
        yield
    machine.kill(case.victim)


def until_message(news: "queue.SimpleQueue[Msg]", count: int) -> None:
    """Wait for so many messages of what is heard, progress not counted; but not for ever."""
    end = time.monotonic() + MOMENT_TIMEOUT_S
    while count and (left := end - time.monotonic()) > 0:
        try:
            subject = news.get(timeout=left).subject
        except queue.Empty:
            return
        count -= not subject.startswith("cutover.progress.")


def injection(moment: Moment) -> list[str]:
    """Strace's words for it."""
    return [
        "-e",
        f"trace={moment.syscall}",
        "-e",
        f"inject={moment.syscall}:signal=SIGKILL:when={moment.call}",
    ]


def started_under(moment: Moment) -> list[str]:
    """The program that runs a service which is to die as it starts; the service is our child, strace a child of its own."""
    return ["strace", "-D", "-f", "-qq", "-o", "/dev/null", *injection(moment)] if moment.syscall else []


@contextmanager
def _traced(machine: Machine, victim: str, moment: Moment) -> Iterator[None]:
    (part,) = parts_of(victim)
    command = ["strace", "-f", "-o", "/dev/null", *injection(moment), "-p", str(machine.pid_of(part))]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        assert "attached" in said, said
        try:
            yield
        finally:
            tracer.terminate()
            tracer.communicate(timeout=ATTACH_TIMEOUT_S)


def until_dead(machine: Machine, victim: str) -> None:
    """Wait for a moment to come, but not for ever."""
    (part,) = parts_of(victim)
    end = time.monotonic() + MOMENT_TIMEOUT_S
    while machine.runs(part) and time.monotonic() < end:
        time.sleep(LOOK_S)  # strace tells nobody that it has injected
