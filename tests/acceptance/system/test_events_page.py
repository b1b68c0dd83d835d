"""Every command and program on the page about events, run as it stands there: with the stock `nats` program and with nats-py."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from docs.reference.files import PAGE
from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.whole_system import ASK_AGAIN_S, CLONING, System

TIMEOUT_S = 30.0
URL_ON_THE_PAGE = "nats://127.0.0.1:4222"


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


COMMANDS = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
LISTENING = [command for command in COMMANDS if command[1] == "sub"]
ASKING = [command for command in COMMANDS if command[1] != "sub"]


class Listener:
    """A program that goes on until it is ended; what it has said so far."""

    def __init__(self, command: Sequence[str], system: System, number: int) -> None:
        self._said = system.folder / f"listener-{number}.txt"
        with self._said.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment(system),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self._said.read_text()

    def until(self, *words: str) -> None:
        """Wait until all of these were said. It is a file, which tells nobody that it grows."""
        end = time.monotonic() + TIMEOUT_S
        while not all(word in self.said for word in words):
            assert time.monotonic() < end, f"not {words}: {self.said}"
            assert self.process.poll() is None, self.said
            time.sleep(ASK_AGAIN_S)


def environment(system: System) -> dict[str, str]:
    """With no context of the `nats` program that somebody may have here, and its patience that of a test."""
    own = {"NATS_URL": system.url, "NATS_TIMEOUT": f"{TIMEOUT_S:g}s", "XDG_CONFIG_HOME": str(system.folder)}
    return os.environ | own


def by(program: Path, command: Sequence[str]) -> list[str]:
    """The command, by the pinned program."""
    return [str(program), *command[1:]]


@contextmanager
def listening(system: System, *commands: Sequence[str]) -> Iterator[list[Listener]]:
    with ExitStack() as stack:
        listeners = []
        for number, command in enumerate(commands):
            listener = Listener(command, system, number)
            stack.callback(listener.process.wait, TIMEOUT_S)
            stack.callback(listener.process.terminate)
            listeners.append(listener)
        yield listeners


def a_copy_and_a_fault(system: System) -> None:
    """What the listeners are to hear of: the host is killed when both sides are in sync."""
    system.client.command("sync", "vol1")
    system.client.until_state("vol1", "source-selected")
    system.kill_service(CLONING)
    system.start_service(CLONING)


def test_there_is_something_to_run() -> None:
    assert len(LISTENING) == 4
    assert len(ASKING) == 9
    assert len(blocks("python")) == 2
    assert all(command[0] == "nats" for command in COMMANDS)


@pytest.mark.nats_cli
def test_every_way_to_listen_hears_what_it_is_for(running: tuple[System, Pair], nats_cli: Path) -> None:
    system, _pair = running
    with listening(system, *(by(nats_cli, command) for command in LISTENING)) as listeners:
        everything, of_vol1, faults, recorded = listeners
        for listener in (everything, of_vol1, faults):
            listener.until("Subscribing")
        for command in LISTENING[:3]:
            system.until_subscribed(command[2])
        recorded.until('"trigger":"setup"')
        a_copy_and_a_fault(system)
        everything.until(
            "cutover.control.sync.vol1", "cutover.progress.vol1", "ce-type: io.cutover.journal.state.v1"
        )
        of_vol1.until('"state":"source-selected"', "cutover.journal.vol1.flag")
        faults.until('"cause":"unclean-shutdown"')
        recorded.until('"cause":"unclean-shutdown"')
        assert "cutover.progress" not in of_vol1.said
        assert '"kind":"state"' not in faults.said


@pytest.mark.nats_cli
def test_every_question_and_command_is_answered(running: tuple[System, Pair], nats_cli: Path) -> None:
    system, _pair = running
    system.client.command("sync", "vol1")
    with system.client.heard("cutover.progress.vol1") as news:
        news.get(timeout=TIMEOUT_S)
    system.client.until_state("vol1", "source-selected")
    for command in ASKING:
        done = subprocess.run(
            by(nats_cli, command),
            env=environment(system),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert '"error":' not in done.stdout, f"{command}: {done.stdout}"
        assert any(word in done.stdout for word in ("vol1", "cutover-state-control", "faults")), command
    assert system.client.query("vol1")["state"] == "setup"


def test_the_programs_hear_and_route(running: tuple[System, Pair]) -> None:
    system, _pair = running
    programs = [block.replace(URL_ON_THE_PAGE, system.url) for block in blocks("python")]
    assert all(system.url in program for program in programs)
    with listening(system, *([sys.executable, "-c", program] for program in programs)) as (follower, router):
        for subject in ("cutover.journal.>", "cutover.>"):
            system.until_subscribed(subject)
        a_copy_and_a_fault(system)
        follower.until("vol1 flag-set", "vol1 state source-selected", "vol1 fault", "vol1 state setup")
        router.until("tell the channel: vol1, ", "wake somebody: vol1, ")
