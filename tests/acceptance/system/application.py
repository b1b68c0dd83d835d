"""Drives `nbd_application.py`, and judges what it has reported."""

import contextlib
import json
import queue
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = Path(__file__).parent / "nbd_application.py"
PYTHON = "/usr/bin/python3"  # the one that has libnbd
BLOCK_BYTES = 4096
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """What the application knows in the end."""

    operations: int
    acknowledged: dict[int, int]
    errors: list[str]
    p99_ms: float
    worst_ms: float

    def differences(self, device: Path) -> list[str]:
        """Acknowledged blocks that a device does not hold."""
        differing = []
        with device.open("rb") as file:
            for number, stamp in sorted(self.acknowledged.items()):
                file.seek(number * BLOCK_BYTES)
                found = file.read(BLOCK_BYTES)
                if not found.startswith(f"block {number} stamp {stamp} ".encode()):
                    differing.append(f"block {number} is not of stamp {stamp}: {found[:40]!r}")
        return differing

    def without(self, later: "Report") -> "Report":
        """Only the blocks that a later application has not written."""
        kept = {
            number: stamp for number, stamp in self.acknowledged.items() if number not in later.acknowledged
        }
        return replace(self, acknowledged=kept)


class Application:
    """One that runs. Started by entering; `stop` it for its report."""

    def __init__(self, uri: str, *, seed: int = 1, first_block: int = 0, blocks: int = 512) -> None:
        self._command = [PYTHON, str(PROGRAM), uri, str(seed), str(first_block), str(blocks)]
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._operations = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()
        self._hear(PATIENCE_S)
        return self

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line)
        self._said.put("")

    def _hear(self, timeout_s: float) -> dict[str, object]:
        line = self._said.get(timeout=timeout_s)
        if not line:
            assert self._process.stderr is not None
            raise AssertionError(f"the application ended: {self._process.stderr.read()}")
        said: dict[str, object] = json.loads(line)
        self._operations = int(str(said["operations"]))
        return said

    def until_operations(self, more: int, *, timeout_s: float = PATIENCE_S) -> None:
        """Return when it has done so many more."""
        while not self._said.empty():
            self._hear(0)
        wanted = self._operations + more
        end = time.monotonic() + timeout_s
        while self._operations < wanted:
            left = end - time.monotonic()
            assert left > 0, f"the application did {self._operations} operations, not {wanted}"
            self._hear(left)

    def stop(self) -> Report:
        """Let it finish, and flush."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended by itself, and has reported
            self._process.stdin.write("\n")
            self._process.stdin.close()
        end = time.monotonic() + PATIENCE_S
        while "acknowledged" not in (said := self._hear(max(0, end - time.monotonic()))):
            continue
        self._process.wait(PATIENCE_S)
        acknowledged: dict[str, int] = said.pop("acknowledged")  # type: ignore[assignment]
        return Report(acknowledged={int(each): stamp for each, stamp in acknowledged.items()}, **said)  # type: ignore[arg-type]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE_S)
        self._listening.join(PATIENCE_S)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
