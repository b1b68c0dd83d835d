"""The handshake with a client: moves what is said between its line and `shared.nbd.server_handshake`.

A client has a deadline, TLS included, and nothing more is read from it before it has taken its replies, so that what a
handshake holds is bounded.
"""

import asyncio
import socket
from typing import NamedTuple

from services.write_cloning.export.line import ClientLeftError, Line, PlainLine, secure
from services.write_cloning.export.tls import Tls
from services.write_cloning.export.wire import Wire
from shared.nbd.server_handshake import Ended, Entered, SecureNow, Send, ServerHandshake


class Negotiated(NamedTuple):
    """What a client has come to: what it may do, by which way, and what its certificate calls it (if it has shown one)."""

    entered: Entered
    wire: Wire
    peer: str


async def negotiate(
    connection: socket.socket, handshake: ServerHandshake, tls: Tls | None, seconds: float
) -> Negotiated:
    """Go through the handshake with a client. TLS there must be if the handshake's policy wants it.

    Raises:
        ClientLeftError: it went away.
        TlsRefusedError: TLS failed.
        NbdPeerError: it broke the protocol.
        TimeoutError: it took too long.
        OSError: the connection broke.
    """
    line: Line = PlainLine(connection)
    async with asyncio.timeout(seconds):
        await line.send(handshake.greeting())
        while True:
            data = await line.receive()
            if not data:
                raise ClientLeftError("the client went away during the handshake")
            for event in handshake.receive(data):
                match event:
                    case Send(reply):
                        await line.send(reply)
                    case SecureNow():
                        line = await _secured(connection, handshake, tls)
                    case Entered():
                        return Negotiated(event, line.wire(), line.peer)
                    case Ended(error):
                        await line.say_goodbye()
                        raise error or ClientLeftError("the client ended the handshake")


async def _secured(connection: socket.socket, handshake: ServerHandshake, tls: Tls | None) -> Line:
    if tls is None:
        raise RuntimeError("TLS was accepted, but this server has none")  # its policy is OFF
    line = await secure(connection, tls)
    handshake.secured()
    return line
