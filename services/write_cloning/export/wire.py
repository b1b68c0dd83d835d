"""The way to and from one client in the transmission phase, in clear text or under TLS (`tls_wire`).

A wire is like a socket that does not block: `BlockingIOError` where it would, 0 bytes at the end, parts of what was to be sent.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Protocol


class Wire(Protocol):
    """Of a connection; it closes the socket."""

    @property
    def connection(self) -> socket.socket:
        """The socket that it goes through."""

    def recv_into(self, into: memoryview, /) -> int:
        """Receive what is there; 0: the client says no more."""

    def fileno(self) -> int:
        """Of the socket, to wait until it takes more."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Send from the front; how many bytes of it are in the socket. After `BlockingIOError` come with the same bytes again."""

    def sendmsg(self, pieces: Sequence[bytes | memoryview], /) -> int:
        """The same with several pieces."""

    def start_reading(self, callback: Callable[[], None]) -> None:
        """Call back whenever there is something to receive."""

    def stop_reading(self) -> None:
        """Call back no more."""

    def close(self) -> None:
        """Say that nothing more comes, where there is a way to, and close the socket. Reading was stopped."""


class PlainWire:
    """Clear text: the socket itself. Hot."""

    __slots__ = ("_loop", "connection", "fileno", "recv_into", "send", "sendmsg")

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        self._loop = loop
        self.connection = connection
        # The socket's own, so that there is nothing in between.
        self.recv_into = connection.recv_into
        self.send = connection.send
        self.sendmsg = connection.sendmsg
        self.fileno = connection.fileno

    def start_reading(self, callback: Callable[[], None]) -> None:
        """See `Wire`."""
        self._loop.add_reader(self.connection, callback)

    def stop_reading(self) -> None:
        """See `Wire`."""
        self._loop.remove_reader(self.connection)

    def close(self) -> None:
        """See `Wire`."""
        self.connection.close()
