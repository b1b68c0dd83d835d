"""The same under TLS: what a client sent, decrypted; what it is sent, encrypted. Hot, as far as encryption lets it.

The session works on memory, so that reading never waits for writing nor the other way round; what it holds is bounded:

- of what came, one read of the socket and a record; it is asked for no more before that is decrypted and taken;
- of what goes out, the records of `CHUNK_BYTES` of replies. They count as sent when their last byte is in the socket, not before,
  so that buffers are kept and a client is held back as it is in clear text;
- besides, what TLS itself has to say to the client, which may not pile up.

The loop watches the socket, and does not see what is here already. So whoever reads is called again while there may be more.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence

from services.write_cloning.export.tls import SCRATCH_BYTES, TlsSession

RECORD_BYTES = 16 << 10
"""The most that a record holds."""

CHUNK_BYTES = 64 << 10
"""What is encrypted ahead of the socket."""

UNASKED_BYTES_MAX = 128 << 10
"""What may wait to be sent when the client makes TLS say more: a chunk, and as much again."""

RECEIVES_MAX = 4
"""Reads of the socket in one call, so that other clients have their turn."""


class TlsWire:
    """See `Wire`."""

    __slots__ = (
        "_callback",
        "_has_ended",
        "_incoming",
        "_loop",
        "_nudge",
        "_outgoing",
        "_owed_bytes",
        "_scratch",
        "_tls",
        "_unsent",
        "connection",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: socket.socket, session: TlsSession
    ) -> None:
        """Go on with a session whose handshake is done."""
        self._loop = loop
        self.connection = connection
        self._tls = session.tls
        self._incoming = session.incoming
        self._outgoing = session.outgoing
        self._scratch = session.scratch
        self._has_ended = False  # the client says no more
        self._callback: Callable[[], None] | None = None
        self._nudge: asyncio.Handle | None = None
        self._unsent: bytes | memoryview = b""  # ciphertext, before what is in `_outgoing`
        self._owed_bytes = 0  # that were encrypted, and are not told as sent

    def fileno(self) -> int:
        """See `Wire`."""
        return self.connection.fileno()

    # -------------------------------------------------------------------------------------------------------- receiving

    def recv_into(self, into: memoryview) -> int:
        """See `Wire`.

        Raises:
            BlockingIOError: nothing came that could be decrypted.
            OSError: the connection is broken, or the client has broken TLS.
        """
        room = len(into)
        filled = self._decrypt(into)
        for _ in range(RECEIVES_MAX):
            if filled == room or self._has_ended:
                break
            received = self._receive()
            filled += self._decrypt(into[filled:])
            if received < SCRATCH_BYTES:
                break
        if self._has_more():
            self._call_again()
        if not filled and not self._has_ended:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return filled

    def start_reading(self, callback: Callable[[], None]) -> None:
        """See `Wire`."""
        self._callback = callback
        self._loop.add_reader(self.connection, callback)
        if self._has_more():
            self._call_again()

    def stop_reading(self) -> None:
        """See `Wire`."""
        self._callback = None
        if self._nudge is not None:
            self._nudge.cancel()
            self._nudge = None
        self._loop.remove_reader(self.connection)

    def _has_more(self) -> bool:
        """Whether there may be something to receive that the loop does not see. At worst it is a part of a record."""
        return self._has_ended or self._tls.pending() > 0 or self._incoming.pending > 0

    def _call_again(self) -> None:
        if self._nudge is None and self._callback is not None:
            self._nudge = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._nudge = None
        if self._callback is not None:
            self._callback()

    def _receive(self) -> int:
        """Take in what the socket has; how many bytes that was."""
        try:
            received = self.connection.recv_into(self._scratch)
        except BlockingIOError:
            return 0
        if received:
            self._incoming.write(self._scratch[:received])
        else:
            self._has_ended = True  # without a word; what was whole until then counts
        return received

    def _decrypt(self, into: memoryview) -> int:
        tls, incoming = self._tls, self._incoming
        filled, room = 0, len(into)
        try:
            while filled < room and (incoming.pending or tls.pending()):
                count = int(tls.read(room - filled, into[filled:]))  # a number, as there is a buffer
                if not count:
                    self._has_ended = True  # it said so
                    break
                filled += count
        except ssl.SSLWantReadError:  # the last record is not whole
            return filled
        finally:
            if self._outgoing.pending:
                self._send_unasked()
        return filled

    def _send_unasked(self) -> None:
        """Send what TLS has to say, or leave it for later if the socket is full.

        Raises:
            ConnectionAbortedError: the client makes it say more than it takes.
        """
        if self._outgoing.pending + len(self._unsent) > UNASKED_BYTES_MAX:
            raise ConnectionAbortedError(errno.ECONNABORTED, "it does not take what TLS has to tell it")
        try:
            self._flush()
        except BlockingIOError:
            return

    # ---------------------------------------------------------------------------------------------------------- sending

    def send(self, data: bytes | memoryview, /) -> int:
        """See `Wire`."""
        return self.sendmsg((data,))

    def sendmsg(self, pieces: Sequence[bytes | memoryview], /) -> int:
        """See `Wire`. No more than a chunk at once.

        Raises:
            BlockingIOError: the socket is full.
            OSError: the connection is broken.
        """
        if not self._owed_bytes:
            self._flush()
            write = self._tls.write
            for record in records(pieces, CHUNK_BYTES):
                self._owed_bytes += write(record)
        self._flush()
        sent, self._owed_bytes = self._owed_bytes, 0
        return sent

    def _flush(self) -> None:
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            sent = self.connection.send(self._unsent)
            self._unsent = self._unsent[sent:] if sent < len(self._unsent) else b""

    def close(self) -> None:
        """See `Wire`. It is a courtesy, for which nobody waits: what the socket does not take now is not said."""
        with contextlib.suppress(
            OSError
        ):  # also ssl.SSLError: it would wait for the client's good-bye, or the session is broken
            self._tls.unwrap()
        with contextlib.suppress(OSError):
            self._flush()
        self.connection.close()


def records(pieces: Sequence[bytes | memoryview], most: int) -> Iterator[bytes | memoryview]:
    """What fills records, from the front of some pieces and `most` bytes in all: large ones cut, small ones joined."""
    joined: list[bytes | memoryview] = []
    joined_bytes = 0
    for piece in pieces:
        at, end = 0, min(len(piece), most)
        most -= end
        while at < end:
            step = min(RECORD_BYTES - joined_bytes, end - at)
            part = memoryview(piece)[at : at + step]
            at += step
            if step == RECORD_BYTES:
                yield part
                continue
            joined.append(part)
            joined_bytes += step
            if joined_bytes == RECORD_BYTES:
                yield b"".join(joined)
                joined, joined_bytes = [], 0
        if not most:
            break
    if joined:
        yield joined[0] if len(joined) == 1 else b"".join(joined)
