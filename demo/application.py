"""The application as the demonstration runs it: a process of its own, told of steps and marks, telling what it did."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.system import last_lines, pipe
from demo.volume import DemoError

PYTHON = "/usr/bin/python3"  # Debian's, which has libnbd's module
PATIENCE_S = 60.0


@dataclass(slots=True)
class StepFigures:
    """What the application did in one step."""

    name: str
    seconds: float = 0.0
    reads: int = 0
    writes: int = 0
    worst_ms: float = 0.0

    @property
    def iops(self) -> float:
        """Reads and writes for each second."""
        return (self.reads + self.writes) / self.seconds if self.seconds else 0.0

    def add(self, report: dict[str, Any]) -> None:
        """Take in one of its reports."""
        self.seconds += report["seconds"]
        self.reads += report["reads"]
        self.writes += report["writes"]
        self.worst_ms = max(self.worst_ms, report["worst_ms"])


class Application:
    """A client at work."""

    def __init__(
        self, process: asyncio.subprocess.Process, on_report: Callable[[dict[str, Any]], None]
    ) -> None:
        """`on_report` is given each of its reports."""
        self.steps: dict[str, StepFigures] = {}
        self._process = process
        self._on_report = on_report
        self._wrong: list[str] = []
        self._is_connected = False
        self._has_ended = False
        self._marks: set[str] = set()
        self._news = asyncio.Condition()

    async def listen(self) -> None:
        """Take in what it tells until it ends."""
        while line := await pipe(self._process.stdout).readline():
            self._take(json.loads(line))
            async with self._news:
                self._news.notify_all()
        await self._process.wait()
        self._has_ended = True
        async with self._news:
            self._news.notify_all()

    def _take(self, told: dict[str, Any]) -> None:
        if "mark" in told:
            self._marks.add(told["mark"])
        elif "connected" in told:
            self._is_connected = True
        else:
            self.steps.setdefault(told["step"], StepFigures(told["step"])).add(told)
            self._wrong = told["wrong"] or self._wrong
            self._on_report(told)

    async def connected(self) -> None:
        """Return when it has connected."""
        await self._until(lambda: self._is_connected, "does not connect")

    def step(self, name: str) -> None:
        """From now on its figures belong to this step."""
        self._say(f"step {name}")

    async def mark(self, name: str) -> None:
        """Return when the mark stands in its list."""
        self._say(f"mark {name}")
        await self._until(lambda: name in self._marks, f"does not set the mark {name}")

    async def stop(self) -> None:
        """Let it finish what is in flight, flush, and end.

        Raises:
            DemoError: it found something wrong, or its I/O failed.
        """
        self._say("stop")
        await self._until(lambda: self._has_ended, "does not stop")

    def check(self) -> None:
        """Raise what it found wrong, or that it has ended by itself."""
        if self._wrong:
            raise DemoError("The application saw something wrong: " + "; ".join(self._wrong))
        if self._has_ended and self._process.returncode != 0:
            raise DemoError(f"The application ended with status {self._process.returncode}.")

    def _say(self, line: str) -> None:
        self.check()
        if self._process.stdin is None or self._has_ended:
            raise DemoError("The application has ended before its time.")
        self._process.stdin.write(f"{line}\n".encode())

    async def _until(self, is_so: Callable[[], bool], otherwise: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                await self._news.wait_for(lambda: is_so() or self._has_ended)
        except TimeoutError:
            raise DemoError(f"The application {otherwise}.") from None
        self.check()
        if not is_so():
            raise DemoError(f"The application has ended and {otherwise}.")


@asynccontextmanager
async def at_work(
    arguments: Sequence[str], log: Path, on_report: Callable[[dict[str, Any]], None]
) -> AsyncIterator[Application]:
    """Run the client with these arguments; it ends with the context, whatever happens.

    Raises:
        DemoError: it cannot connect.
    """
    root = Path(__file__).parent.parent
    with log.open("wb") as log_file:
        process = await asyncio.create_subprocess_exec(
            PYTHON, "-m", "demo.client", *arguments,
            cwd=root, env={"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log_file,
            start_new_session=True,
        )  # fmt: skip
    application = Application(process, on_report)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(application.listen())
        try:
            await application.connected()
            yield application
        except DemoError as error:
            raise DemoError(f"{error}\n{last_lines(log)}".rstrip()) from error
        finally:
            if process.returncode is None:
                process.terminate()
