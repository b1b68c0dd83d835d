"""A child process that is kept alive until it is told to stop.

Each child leads a session of its own, so that Ctrl-C on a terminal reaches `cutover up` alone, which then stops the
services in the order that keeps data safe. What a child does is not known here.
"""

import asyncio
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BACKOFF_S = (
    0.5,
    1.0,
    2.0,
    4.0,
    8.0,
    15.0,
    30.0,
)  # before the first, second… restart in a row; the last one stays
STABLE_S = 60.0  # a child that lived so long begins the row anew


class ChildError(Exception):
    """A child could not be started, or ended before it was ready; the message is a whole sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPlan:
    """How to run a child. A clean stop may take `stop_patience_s`; without `log` it speaks on our standard error."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    stop_patience_s: float
    log: Path | None = None
    held_open: Sequence[int] = ()  # descriptors that the child inherits, for the locks on them


class Child:
    """One child: started, restarted when it dies, stopped once."""

    def __init__(self, plan: ChildPlan, tell: Callable[[str], None]) -> None:
        """`tell` takes a sentence for the operator whenever something happens to the child by itself."""
        self.plan = plan
        self._tell = tell
        self._process: Process | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the process.

        Raises:
            ChildError: it cannot be started.
        """
        log = self.plan.log.open("ab") if self.plan.log is not None else None
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.plan.command,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.plan.environment),
                start_new_session=True,
                pass_fds=tuple(self.plan.held_open),
            )
        except OSError as error:
            raise ChildError(f"{self.plan.name} cannot be started: {error}.") from error
        finally:
            if log is not None:
                log.close()

    async def ended(self) -> str:
        """Wait for the running process to end; how it ended, as the end of a sentence."""
        if self._process is None:
            raise ChildError(f"{self.plan.name} was never started.")
        return ending(await self._process.wait())

    async def ended_within(self, time_s: float) -> str | None:
        """How the process ended; None when it has not within the time."""
        try:
            async with asyncio.timeout(time_s):
                return await self.ended()
        except TimeoutError:
            return None

    async def keep(self) -> None:
        """Restart the process whenever it ends by itself; return once it is being stopped."""
        loop = asyncio.get_running_loop()
        in_a_row = 0
        while True:
            began = loop.time()
            how = await self.ended()
            if self._stopping.is_set():
                return
            in_a_row = 0 if loop.time() - began > STABLE_S else in_a_row
            delay_s = BACKOFF_S[min(in_a_row, len(BACKOFF_S) - 1)]
            in_a_row += 1
            self._tell(f"{self.plan.name} {how}; starting it again in {delay_s:g} s.{self._see_log()}")
            if await self._told_to_stop_within(delay_s):
                return
            await self._start_again()

    async def _told_to_stop_within(self, delay_s: float) -> bool:
        try:
            async with asyncio.timeout(delay_s):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    async def _start_again(self) -> None:
        try:
            await self.start()
        except ChildError as error:
            self._tell(str(error))
        else:
            self._tell(f"{self.plan.name} runs again, as process {self.pid}.")

    async def stop(self) -> bool:
        """Stop the process, cleanly if it can within its patience. Whether the stop was clean."""
        self._stopping.set()
        process = self._process
        if process is None:
            return True
        if process.returncode is not None:
            self._tell(f"{self.plan.name} was not running any more: it {ending(process.returncode)}.")
            return process.returncode == 0
        _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(self.plan.stop_patience_s):
                status = await process.wait()
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            await process.wait()
            self._tell(
                f"{self.plan.name} had to be killed: it did not stop within {self.plan.stop_patience_s:g} s."
            )
            return False
        if status != 0:
            self._tell(f"{self.plan.name} did not stop cleanly: it {ending(status)}.{self._see_log()}")
        return status == 0

    def _see_log(self) -> str:
        return f" Its log is {self.plan.log}." if self.plan.log is not None else ""


def _signal(process: Process, number: signal.Signals) -> None:
    if process.returncode is None:
        process.send_signal(number)


def ending(status: int) -> str:
    """An exit status in words, as the end of a sentence."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
