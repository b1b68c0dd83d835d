"""A server in the test's own loop, programs that judge it, and a client that does what no good client would."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.export.limits import Limits
from services.write_cloning.export.listener import listen_unix
from services.write_cloning.export.server import ExportServer
from shared.clock import SystemClock
from shared.nbd.client_handshake import ClientHandshake, Entered, Send
from shared.nbd.client_replies import Data, Done, ReplyParser
from shared.nbd.constants import Command
from shared.nbd.exports import Agreement
from shared.nbd.requests import pack_request
from tests.integration.export.memory_volume import MemoryVolume

MIB = 1 << 20


class Serving:
    """A running server and where it is."""

    def __init__(self, server: ExportServer, path: Path, pool: BufferPool) -> None:
        self.server = server
        self.path = path
        self.pool = pool
        self.clients: list[RawClient] = []

    def uri(self, name: str = "v") -> str:
        return f"nbd+unix:///{name}?socket={self.path}"

    async def connect(self, name: str = "v") -> "RawClient":
        client = await RawClient.connect(self.path, name)
        self.clients.append(client)
        return client


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    volumes: Mapping[str, MemoryVolume],
    *,
    limits: Limits | None = None,
    pool: BufferPool | None = None,
    read_only: bool = False,
    keep_clients: bool = False,
) -> AsyncIterator[Serving]:
    """Serve volumes on a Unix socket; in the end every buffer must be back in the pool."""
    pool = pool or BufferPool()
    async with ExportServer(SystemClock(), limits) as server:
        for name, volume in volumes.items():
            server.add(name, volume, pool, description=f"volume {name}", read_only=read_only)
        path = folder / "nbd.sock"
        server.listen(listen_unix(path))
        running = Serving(server, path, pool)
        try:
            yield running
        finally:
            while running.clients and not keep_clients:
                running.clients.pop().close()
    assert pool.in_use_bytes == 0
    pool.close()


async def run(*command: str, expect: int = 0) -> str:
    """Run a program to its end; what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode(errors="replace")
    assert process.returncode == expect, f"{command}: exit status {process.returncode}\n{text}"
    return text


class RawClient:
    """Speaks NBD byte by byte, so that it can stop anywhere."""

    def __init__(self, connection: socket.socket, agreement: Agreement) -> None:
        self.socket = connection
        self.agreement = agreement
        self._loop = asyncio.get_running_loop()
        self._parser = ReplyParser()
        self._received = b""
        self._cookie = 0
        self._done: dict[int, int] = {}
        self._content: dict[int, bytearray] = {}

    @classmethod
    async def connect(cls, path: Path, name: str) -> "RawClient":
        loop = asyncio.get_running_loop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        await loop.sock_connect(connection, str(path))
        handshake = ClientHandshake(name)
        while True:
            for event in handshake.receive(await loop.sock_recv(connection, 4096)):
                if isinstance(event, Send):
                    await loop.sock_sendall(connection, event.data)
                elif isinstance(event, Entered):
                    return cls(connection, event.agreement)
                else:
                    connection.close()
                    raise event.error

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.socket, data)

    async def receive(self, most: int = MIB) -> bytes:
        return await self._loop.sock_recv(self.socket, most)

    async def request(
        self, command: Command, offset: int = 0, length: int = 0, payload: bytes = b"", *, flags: int = 0
    ) -> int:
        """Send a request; its cookie."""
        self._cookie += 1
        self._parser.expect(command, self._cookie, offset, length)
        await self.send(pack_request(command, flags, self._cookie, offset, length) + payload)
        return self._cookie

    async def reply(self, cookie: int) -> int:
        """Wait for the end of a request; its error."""
        while cookie not in self._done:
            data = await self.receive()
            if not data:
                raise EOFError
            self._received += data
            found, consumed = self._parser.parse(self._received, 0, len(self._received))
            for reply in found:
                if isinstance(reply, Done):
                    self._done[reply.cookie] = reply.error
                elif isinstance(reply, Data):
                    piece = self._received[reply.position : reply.position + reply.length]
                    self._content.setdefault(reply.cookie, bytearray()).extend(piece)
            self._received = self._received[consumed:]
        return self._done.pop(cookie)

    async def write(self, offset: int, payload: bytes, *, flags: int = 0) -> int:
        return await self.reply(await self.request(Command.WRITE, offset, len(payload), payload, flags=flags))

    async def read(self, offset: int, length: int) -> bytes:
        cookie = await self.request(Command.READ, offset, length)
        assert await self.reply(cookie) == 0
        return self.take(cookie)

    def take(self, cookie: int) -> bytes:
        """What a read that was answered has brought."""
        return bytes(self._content.pop(cookie))

    async def is_hung_up_on(self) -> bool:
        """Wait for the server's end of the connection to close."""
        try:
            return await self.receive(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()


async def until(condition: asyncio.Event, seconds: float = 10) -> None:
    """Wait for an event, but not for ever."""
    async with asyncio.timeout(seconds):
        await condition.wait()
