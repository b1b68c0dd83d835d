"""The course of every crash case: one volume under load, brought to a state; then a crash; then the proof."""

import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.system.devices import empty_file
from tests.acceptance.system.plain_client import RECHECK_S, Answer, Json, Refused
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import HOST
from tests.crashes.blocks import BLOCK_BYTES
from tests.crashes.cases import CLONES, NOTHING, Case
from tests.crashes.evidence import settled, unlawful
from tests.crashes.machine import Machine
from tests.crashes.writing import Report, Writing, fill

BLOCKS = 768  # 3 MiB: several regions, and quickly read
NAME = "vol1"
INSIST_S = 30.0
OPERATIONS = 60


@dataclass(slots=True)
class Course:
    """One volume and the application on it."""

    machine: Machine
    source: Path
    target: Path
    writing: Writing
    given: Future[Answer] | None = None

    def give(self, command: str) -> None:
        """Give a command, and do not wait for it."""
        fields: Json = {}
        if command == "setup":
            fields = {"source": str(self.source), "target": str(self.target), "host": HOST}
        elif command == "cleanup":
            fields = {"disconnect": True}
        payload = json.dumps(fields).encode()
        self.given = self.machine.client.begin_asking(f"cutover.control.{command}.{NAME}", payload)

    def answer(self) -> Json | None:
        """What was answered to the command, if it has succeeded by now."""
        if self.given is None or not self.given.done() or self.given.exception() is not None:
            return None
        body = self.given.result().body
        return None if "error" in body else body

    def insist(self, command: str, **fields: object) -> None:
        """Give a command; again when one that was given before is still under way."""
        end = time.monotonic() + INSIST_S
        while True:
            try:
                self.machine.client.command(command, NAME, **fields)
            except Refused as refusal:
                if refusal.code != "busy" or time.monotonic() > end:
                    raise
                time.sleep(RECHECK_S)  # nobody is told when it is over
            else:
                return

    def _existing(self) -> Json:
        """The volume's status; it is set up where it is not. The host may still, or already, have what the journal has not."""
        end = time.monotonic() + INSIST_S
        while (status := settled(self.machine, NAME)) is None:
            try:
                self.machine.set_up(NAME, self.source, self.target)
            except Refused as refusal:
                if refusal.code not in {"busy", "name-taken"} or time.monotonic() > end:
                    raise
                time.sleep(RECHECK_S)
        return status

    def prove(self) -> Report:
        """Go on to where one side can be held against the other, stop, and compare every byte."""
        client = self.machine.client
        status = self._existing()
        if status["state"] in {"setup", "syncing"}:
            self.insist("resume")
        if status["state"] == "setup":
            self.insist("sync")
        if status["state"] in {"setup", "syncing"}:
            client.until_state(NAME, "source-selected")
        self.writing.until_operations(OPERATIONS)
        report = self.writing.stop()
        state = client.query(NAME)["state"]
        assert report.wrong == []
        assert report.differences(self.target) == []
        if state in CLONES:
            assert report.differences(self.source) == []
            assert self.source.read_bytes() == self.target.read_bytes()
        assert unlawful(client.journal(NAME)) == []
        return report


@contextmanager
def course(machine: Machine, case: Case) -> Iterator[Course]:
    """A volume in the case's state, with an application on it unless there is no volume.

    A machine on which a case fails is not used for another.
    """
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=machine.data))
    source = fill(folder / "source.img", BLOCKS)
    target = empty_file(folder / "target.img", BLOCKS * BLOCK_BYTES)
    if case.state != NOTHING:
        machine.set_up(NAME, source, target)
    with Writing(machine.export(NAME), BLOCKS) as writing:
        if case.state != NOTHING:
            bring_to(machine, NAME, case.state)
            writing.until_operations(OPERATIONS)
        running = Course(machine, source, target, writing)
        try:
            yield running
        except BaseException:
            machine.is_spoiled = True
            raise
        finally:
            if running.given is not None:
                running.given.cancel()
