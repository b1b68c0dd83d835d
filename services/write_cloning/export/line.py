"""A client's bytes while it negotiates: whole, one after the other, each waited for; in clear text first, then perhaps under TLS.

Slow path, hence plain `await`s. What becomes of a line once an export is chosen is a wire.
"""

import asyncio
import contextlib
import socket
import ssl
from typing import Protocol

from services.write_cloning.export.tls import Tls, TlsSession
from services.write_cloning.export.tls_wire import TlsWire
from services.write_cloning.export.wire import PlainWire, Wire
from shared.nbd.errors import NbdPeerError

READ_BYTES = 4096


class ClientLeftError(NbdPeerError):
    """The client ended the handshake before it had chosen an export, as it may."""


class TlsRefusedError(NbdPeerError):
    """The two did not come to terms over TLS: most often for the client's certificate, or the want of it."""


class Line(Protocol):
    """What is said over it is bounded by what is read at once."""

    @property
    def peer(self) -> str:
        """What the client's certificate calls it; empty where there is none."""

    async def receive(self) -> bytes:
        """What the client says next; nothing when it says no more."""

    async def send(self, data: bytes) -> None:
        """Return when the socket has all of it."""

    async def say_goodbye(self) -> None:
        """Before a hang-up ("Termination of the session during option haggling")."""

    def wire(self) -> Wire:
        """Go on with it in the transmission phase."""


class PlainLine:
    """Clear text."""

    peer = ""

    def __init__(self, connection: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection

    async def receive(self) -> bytes:
        """See `Line`."""
        return await self._loop.sock_recv(self._connection, READ_BYTES)

    async def send(self, data: bytes) -> None:
        """See `Line`."""
        await self._loop.sock_sendall(self._connection, data)

    async def say_goodbye(self) -> None:
        """See `Line`: clear text has none."""

    def wire(self) -> Wire:
        """See `Line`."""
        return PlainWire(self._loop, self._connection)


class TlsLine:
    """Under TLS, with a session whose handshake is done."""

    def __init__(self, connection: socket.socket, session: TlsSession) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._session = session
        self.peer = session.peer

    async def receive(self) -> bytes:
        """See `Line`."""
        session = self._session
        while True:
            try:
                return session.tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                await _send_outgoing(self._connection, session)  # what TLS itself has to say
                if not await _take_in(self._connection, session):
                    return b""
            except ssl.SSLError as error:
                await _send_outgoing(self._connection, session)
                raise TlsRefusedError(_reason(error)) from error

    async def send(self, data: bytes) -> None:
        """See `Line`."""
        left = memoryview(data)
        while left:
            left = left[self._session.tls.write(left) :]
        await _send_outgoing(self._connection, self._session)

    async def say_goodbye(self) -> None:
        """See `Line`. The client's own is not waited for."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._session.tls.unwrap()
        await _send_outgoing(self._connection, self._session)

    def wire(self) -> Wire:
        """See `Line`."""
        return TlsWire(self._loop, self._connection, self._session)


async def secure(connection: socket.socket, tls: Tls) -> TlsLine:
    """Shake hands; the client begins.

    Raises:
        TlsRefusedError: it does not speak TLS, or its certificate will not do; it has been told.
        ClientLeftError: it went away meanwhile.
    """
    session = await tls.begin()
    try:
        while not await tls.advance(session):
            await _send_outgoing(connection, session)
            if not await _take_in(connection, session):
                raise ClientLeftError("the client went away during the TLS handshake")
    except ssl.SSLError as error:
        await _send_outgoing(connection, session)
        raise TlsRefusedError(_reason(error)) from error
    await _send_outgoing(connection, session)
    return TlsLine(connection, session)


async def _take_in(connection: socket.socket, session: TlsSession) -> int:
    """Wait for what the client sends; how many bytes that was."""
    received = await asyncio.get_running_loop().sock_recv(connection, READ_BYTES)
    session.incoming.write(received)
    return len(received)


async def _send_outgoing(connection: socket.socket, session: TlsSession) -> None:
    if session.outgoing.pending:
        await asyncio.get_running_loop().sock_sendall(connection, session.outgoing.read())


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused: {error.verify_message}"
    return (error.reason or str(error)).lower().replace("_", " ")
