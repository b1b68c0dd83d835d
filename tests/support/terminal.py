"""The `cutover` command run as people and scripts run it: as a process, with or without a terminal."""

import asyncio
import os
import pty
import re
import signal
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

COMMAND = (sys.executable, "-m", "services.console")
INSTALLED = (f"{sysconfig.get_path('scripts')}/cutover",)
ON_ITS_TERMINAL = ("setsid", "--ctty")  # so that Ctrl-C is a signal
CTRL_C = "\x03"
PATIENCE_S = 20.0
_STYLING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Ended:
    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Standard output, which is one document and nothing else."""
        return orjson.loads(self.stdout)


def environment(server: str | None, **more: str) -> Mapping[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CUTOVER_")}
    return kept | ({"CUTOVER_NATS_URL": server} if server else {}) | {"NO_COLOR": "1"} | more


async def cutover(*arguments: str, server: str | None = None, typed: bytes = b"") -> Ended:
    """Run to the end, without a terminal."""
    async with started(*arguments, server=server) as process:
        async with asyncio.timeout(PATIENCE_S):
            stdout, stderr = await process.communicate(typed)
        assert process.returncode is not None
        return Ended(process.returncode, stdout.decode(), stderr.decode())


@asynccontextmanager
async def started(
    *arguments: str, server: str | None = None, folder: Path | None = None, **more: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Running while the context is open; never left behind. In a folder of somebody's it is the installed one."""
    process = await asyncio.create_subprocess_exec(
        *(COMMAND if folder is None else INSTALLED),
        *arguments,
        cwd=folder,
        env=environment(server, **more),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await process.communicate()
            except TimeoutError:
                process.kill()
                await process.communicate()


class Terminal:
    """A command on a terminal of its own: what it shows, and keys for it."""

    def __init__(self, process: asyncio.subprocess.Process, leader: int) -> None:
        self.process = process
        self.shown = ""
        self._leader = leader
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(leader, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._leader, 65536)
        except OSError:  # the other end is closed
            data = b""
        if data:
            self.shown += _STYLING.sub("", data.decode(errors="replace"))
        else:
            asyncio.get_running_loop().remove_reader(self._leader)
        self._more.set()

    async def until(self, words: str) -> str:
        """Wait until these words are shown; everything that was, up to now."""
        async with asyncio.timeout(PATIENCE_S):
            while words not in self.shown:
                self._more.clear()
                await self._more.wait()
        return self.shown

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    async def end(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


@asynccontextmanager
async def on_terminal(*arguments: str, server: str | None = None) -> AsyncIterator[Terminal]:
    """Run on a terminal of its own."""
    leader, follower = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *ON_ITS_TERMINAL,
            *COMMAND,
            *arguments,
            env=environment(server, TERM="xterm", COLUMNS="150"),
            stdin=follower,
            stdout=follower,
            stderr=follower,
        )
    finally:
        os.close(follower)
    terminal = Terminal(process, leader)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(leader)
        os.close(leader)
