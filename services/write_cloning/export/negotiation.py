"""The handshake over a socket: moves bytes between the socket and `shared.nbd.server_handshake`.

Slow path, hence plain `await`s. A client has a deadline, and nothing more is read from it before it has taken its
replies, so that what a handshake holds is bounded.
"""

import asyncio
import socket

from shared.nbd.errors import NbdPeerError
from shared.nbd.server_handshake import Ended, Entered, SecureNow, Send, ServerHandshake

_READ_BYTES = 4096


class ClientLeftError(NbdPeerError):
    """The client ended the handshake before it had chosen an export, as it may."""


async def negotiate(connection: socket.socket, handshake: ServerHandshake, seconds: float) -> Entered:
    """Go through the handshake with a client.

    Raises:
        ClientLeftError: it went away.
        NbdPeerError: it broke the protocol.
        TimeoutError: it took too long.
        OSError: the connection broke.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds):
        await loop.sock_sendall(connection, handshake.greeting())
        while True:
            data = await loop.sock_recv(connection, _READ_BYTES)
            if not data:
                raise ClientLeftError("the client went away during the handshake")
            entered = await _follow(connection, handshake, data)
            if entered is not None:
                return entered


async def _follow(connection: socket.socket, handshake: ServerHandshake, data: bytes) -> Entered | None:
    loop = asyncio.get_running_loop()
    for event in handshake.receive(data):
        match event:
            case Send(reply):
                await loop.sock_sendall(connection, reply)
            case Entered():
                return event
            case Ended(error):
                raise error or ClientLeftError("the client ended the handshake")
            case SecureNow():
                raise RuntimeError("TLS was accepted, but this server has none")  # its policy is OFF
    return None
