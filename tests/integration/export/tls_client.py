"""The client that does what no good client would, under TLS: it can stop anywhere, also within TLS's own handshake."""

import asyncio
import socket
import ssl
import struct
from pathlib import Path

from shared.nbd.client_handshake import ClientHandshake, Entered, Send
from shared.nbd.exports import Agreement
from tests.integration.export.harness import MIB, RawClient

CLIENT_FLAGS = struct.pack(">I", 3)
STARTTLS = struct.pack(">8sII", b"IHAVEOPT", 5, 0)
ACKNOWLEDGED = struct.pack(">QIII", 0x3E889045565A9, 5, 1, 0)
GREETING_BYTES = 18


def client_context(folder: Path, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """What a client of this folder does TLS with; of that version alone, if one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca-cert.pem")
    if (folder / "client-cert.pem").exists():
        context.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


async def connect_plainly(port: int) -> socket.socket:
    """A connection whose greeting has been read."""
    loop = asyncio.get_running_loop()
    connection = socket.socket(socket.AF_INET)
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await loop.sock_connect(connection, ("127.0.0.1", port))
    assert len(await loop.sock_recv(connection, 100)) == GREETING_BYTES
    return connection


async def start_tls(port: int) -> socket.socket:
    """A connection whose server waits for TLS."""
    loop = asyncio.get_running_loop()
    connection = await connect_plainly(port)
    await loop.sock_sendall(connection, CLIENT_FLAGS + STARTTLS)
    assert await loop.sock_recv(connection, 100) == ACKNOWLEDGED
    return connection


class Tunnel:
    """TLS over a connection, the client's side."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self.connection = connection
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self._loop = asyncio.get_running_loop()
        self.was_told = False  # that no more comes, in TLS's words

    async def shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                assert await self.take_in(), "the server hung up within the TLS handshake"
            else:
                await self.flush()
                return

    async def send(self, data: bytes) -> None:
        self.encrypt(data)
        await self.flush()

    async def receive(self, most: int) -> bytes:
        while True:
            try:
                data = self.tls.read(most)
            except ssl.SSLWantReadError:
                if not await self.take_in():
                    return b""
            except ssl.SSLZeroReturnError:  # both have said that no more comes
                self.was_told = True
                return b""
            else:
                self.was_told = not data
                return data

    def encrypt(self, data: bytes) -> None:
        """Have it ready to be sent."""
        left = memoryview(data)
        while left:
            left = left[self.tls.write(left) :]

    async def flush(self) -> None:
        await self._loop.sock_sendall(self.connection, self.outgoing.read())

    async def take_in(self) -> int:
        received = await self._loop.sock_recv(self.connection, MIB)
        self.incoming.write(received)
        return len(received)


class TlsClient(RawClient):
    """A raw client in a tunnel."""

    def __init__(self, tunnel: Tunnel, agreement: Agreement) -> None:
        super().__init__(tunnel.connection, agreement)
        self.tunnel = tunnel

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext, name: str = "v") -> "TlsClient":
        tunnel = Tunnel(await start_tls(port), context)
        try:
            return await cls._negotiate(tunnel, name)
        except BaseException:
            tunnel.connection.close()
            raise

    @classmethod
    async def _negotiate(cls, tunnel: Tunnel, name: str) -> "TlsClient":
        await tunnel.shake_hands()
        handshake = ClientHandshake(name)
        flags, *events = handshake.receive(b"NBDMAGICIHAVEOPT\x00\x03")  # which came before
        assert flags == Send(CLIENT_FLAGS)
        while True:
            for event in events:
                if isinstance(event, Send):
                    await tunnel.send(event.data)
                elif isinstance(event, Entered):
                    return cls(tunnel, event.agreement)
                else:
                    raise event.error
            received = await tunnel.receive(4096)
            assert received, "the server hung up"
            events = handshake.receive(received)

    async def send(self, data: bytes) -> None:
        await self.tunnel.send(data)

    async def receive(self, most: int = MIB) -> bytes:
        return await self.tunnel.receive(most)

    async def say_goodbye(self) -> None:
        """Send no more, in TLS's words; the connection stays."""
        try:
            self.tunnel.tls.unwrap()
        except ssl.SSLWantReadError:
            await self.tunnel.flush()
