"""`cutover up` as an operator has it: one process in the foreground, everything under one folder."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.support.terminal import Ended, cutover, started

START_PATIENCE_S = 60.0
STOP_PATIENCE_S = 60.0
MIB = 1 << 20


@dataclass
class Up:
    """A running `cutover up`."""

    process: asyncio.subprocess.Process
    state_dir: Path
    url: str
    ready: Any

    async def cutover(self, *arguments: str) -> Ended:
        return await cutover(*arguments, server=self.url)

    async def done(self, *arguments: str) -> Any:
        """The JSON answer of a command that has to succeed."""
        ended = await self.cutover(*arguments, "--json")
        assert ended.status == 0, ended
        return ended.json

    async def refused(self, *arguments: str) -> Any:
        """The error of a command that has to be refused."""
        ended = await self.cutover(*arguments, "--json")
        assert ended.status == 1, ended
        return ended.json["error"]

    def pid_of(self, service: str) -> int:
        running = orjson.loads((self.state_dir / "up.json").read_bytes())
        return int(running["services"][service])

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        """Ask for an end, and wait for it."""
        self.process.send_signal(number)
        async with asyncio.timeout(STOP_PATIENCE_S):
            stdout, stderr = await self.process.communicate()
        assert self.process.returncode is not None
        return Ended(self.process.returncode, stdout.decode(), stderr.decode())


@asynccontextmanager
async def up(
    state_dir: Path,
    *options: str,
    server: str | None = None,
    monitoring: bool = False,
    folder: Path | None = None,
    **environment: str,
) -> AsyncIterator[Up]:
    """Everything up and ready, but the page unless asked for; stopped on leaving, if it still runs."""
    line = ("up", "--json", "--port", "0", "--state-dir", str(state_dir), *options)
    line = line if monitoring else (*line, "--no-monitoring")
    async with started(*line, server=server, folder=folder, **environment) as process:
        assert process.stdout is not None
        async with asyncio.timeout(START_PATIENCE_S):
            said = await process.stdout.readline()
        if not said:
            _, stderr = await process.communicate()
            raise AssertionError(stderr.decode())
        ready = orjson.loads(said)
        assert ready.get("ready"), ready
        yield Up(process, state_dir, ready["nats_url"], ready)


def make_devices(folder: Path, size_bytes: int = 8 * MIB) -> tuple[Path, Path]:
    """A source with something on it, and an empty target."""
    source, target = folder / "source.img", folder / "target.img"
    source.write_bytes(os.urandom(MIB))
    os.truncate(source, size_bytes)
    target.touch()
    os.truncate(target, size_bytes)
    return source, target


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    """Return when a process that is not our child has ended."""
    descriptor = os.pidfd_open(pid)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(STOP_PATIENCE_S):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
