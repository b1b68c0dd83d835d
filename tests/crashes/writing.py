"""Drives `writer.py`, and holds a device against what it knows."""

import contextlib
import json
import queue
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.acceptance.system.whole_system import ROOT
from tests.crashes.blocks import BLOCK_BYTES, Knowledge, content

PYTHON = "/usr/bin/python3"  # the one that has libnbd
PATIENCE_S = 30.0


def fill(path: Path, blocks: int) -> Path:
    """Give a device the content that a writer expects in the beginning."""
    with path.open("r+b" if path.exists() else "wb") as file:
        for block in range(blocks):
            file.write(content(block, 0))
    return path


@dataclass(frozen=True, slots=True)
class Report:
    """What a writer knows in the end."""

    operations: int
    lives: int
    wrong: list[str]
    errors: list[str]
    known: Knowledge

    def differences(self, device: Path, *, after_power_cut: bool = False) -> list[str]:
        """What a device holds that it may not hold."""
        found = []
        with device.open("rb") as file:
            for block in range(len(self.known.issued)):
                data = file.read(BLOCK_BYTES)
                found.append(self.known.wrong_in(block, data, after_power_cut=after_power_cut))
        return [each for each in found if each]


class Writing:
    """A writer that runs. Started by entering; `stop` it for its report."""

    def __init__(self, uri: str, blocks: int, *, seed: int = 1, power: bool = False) -> None:
        self._command = [PYTHON, "-m", "tests.crashes.writer", uri, str(seed), str(blocks)]
        self._command += ["--power"] if power else []
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.operations = 0
        self.lives = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()
        return self

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line)
        self._said.put("")

    def _hear(self, end: float) -> dict[str, Any]:
        try:
            line = self._said.get(timeout=max(0.01, end - time.monotonic()))
        except queue.Empty:
            raise AssertionError(
                f"nothing new from the writer: {self.operations} operations, {self.lives} connections"
            ) from None
        if not line:
            assert self._process.stderr is not None
            raise AssertionError(f"the writer ended: {self._process.stderr.read()}")
        said: dict[str, Any] = json.loads(line)
        self.operations, self.lives = said["operations"], said["lives"]
        return said

    def until_operations(self, more: int) -> None:
        """Return when it has done so many more."""
        self._catch_up()
        wanted = self.operations + more
        end = time.monotonic() + PATIENCE_S
        while self.operations < wanted:
            self._hear(end)

    def until_lives(self, lives: int) -> None:
        """Return when it has connected so many times, and checked everything each time."""
        end = time.monotonic() + PATIENCE_S
        while self.lives < lives:
            self._hear(end)

    def _catch_up(self) -> None:
        while not self._said.empty():
            self._hear(time.monotonic() + PATIENCE_S)

    def stop(self) -> Report:
        """Let it finish, and flush."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        end = time.monotonic() + PATIENCE_S
        while "issued" not in (said := self._hear(end)):
            continue
        self._process.wait(PATIENCE_S)
        known = Knowledge(0)
        known.acknowledged, known.flushed, known.issued = (
            said["acknowledged"],
            said["flushed"],
            said["issued"],
        )
        return Report(said["operations"], said["lives"], said["wrong"], said["errors"], known)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE_S)
        self._listening.join(PATIENCE_S)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
