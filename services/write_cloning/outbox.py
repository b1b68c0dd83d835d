"""Bytes on their way out of an NBD connection, of either side: what one loop iteration says leaves in one system call. Hot.

Pieces are sent in order. A buffer is released when its last byte is in the socket. When the socket is full, sending
goes on as soon as it can be written to. It must not know what the pieces mean.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from services.write_cloning.devices.buffers import Buffer

MAX_PIECES_PER_SEND = 1024
"""IOV_MAX on Linux: more than this, sendmsg refuses."""


class Sending(Protocol):
    """What is sent through: a socket that does not block, or what behaves like one.

    Where it has said that it would block it is given the same bytes again, with more behind them perhaps.
    """

    def fileno(self) -> int:
        """What to wait for until more can be sent."""

    def send(self, data: bytes | memoryview, /) -> int:
        """How many bytes from the front were sent."""

    def sendmsg(self, pieces: Sequence[bytes | memoryview], /) -> int:
        """The same of several pieces."""


class Outbox:
    """The sending half of one connection.

    `gather` is called before the sending that `push` or `schedule` has asked for, even if nothing can be sent then: it may
    push more. `after_send` is called after every attempt to send, `when_broken` once if the connection turns out to be; from
    then on everything is dropped.
    """

    __slots__ = (
        "_after_send",
        "_flush_callback",
        "_gather",
        "_is_broken",
        "_is_scheduled",
        "_is_watching",
        "_lent",
        "_loop",
        "_pushed_bytes",
        "_socket",
        "_when_broken",
        "pieces",
        "sent_bytes",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: Sending,
        after_send: Callable[[], None],
        when_broken: Callable[[OSError], None],
        gather: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._socket = connection
        self._after_send = after_send
        self._when_broken = when_broken
        self._gather = gather or _nothing
        self._flush_callback = self._flush
        self._is_scheduled = False
        self._is_watching = False
        self._is_broken = False
        self._lent: deque[tuple[int, Buffer]] = (
            deque()
        )  # buffers, with the position in the stream where each ends
        self._pushed_bytes = 0
        self.sent_bytes = 0
        self.pieces: list[bytes | memoryview] = []

    @property
    def unsent_bytes(self) -> int:
        """What the peer has not taken."""
        return self._pushed_bytes - self.sent_bytes

    @property
    def is_blocked(self) -> bool:
        """Whether the socket is full."""
        return self._is_watching

    def push(self, piece: bytes | memoryview) -> None:
        """Send a whole message. Memory that it lies in is lent before the loop goes on (`lend`)."""
        if self._is_broken:
            return
        self.pieces.append(piece)
        self._pushed_bytes += len(piece)
        if not self._is_scheduled:
            self.schedule()

    def push_all(self, pieces: Sequence[bytes]) -> None:
        """Send so many whole messages."""
        if self._is_broken:
            return
        self.pieces += pieces
        self._pushed_bytes += sum(map(len, pieces))
        if not self._is_scheduled:
            self.schedule()

    def schedule(self) -> None:
        """Have `gather` called, and what is pushed sent, once the loop has done what it is at."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush_callback)

    def push_data(self, header: bytes, buffer: Buffer, start: int, length: int) -> None:
        """Send a message with `length` bytes of a buffer from `start` on; takes over the reference to it."""
        if self._is_broken:
            buffer.release()
            return
        pieces = self.pieces
        pieces.append(header)
        pieces.append(buffer.view[start : start + length])
        self._pushed_bytes += len(header) + length
        self._lent.append((self._pushed_bytes, buffer))
        if not self._is_scheduled:
            self.schedule()

    def lend(self, buffer: Buffer) -> None:
        """Take over the reference to a buffer that the pieces so far lie in."""
        if self._is_broken or self._pushed_bytes == self.sent_bytes:
            buffer.release()
        else:
            self._lent.append((self._pushed_bytes, buffer))

    def drop(self) -> None:
        """Send no more: release every buffer, and forget what comes."""
        self._is_broken = True
        self._stop_watching()
        self.pieces.clear()
        self.sent_bytes = self._pushed_bytes
        self._release_sent()

    def _flush(self) -> None:
        self._gather()  # what is pushed meanwhile leaves with the rest
        self._is_scheduled = False
        if not self._is_watching:
            self._send()

    def _send(self) -> None:
        if self._is_broken:
            return
        try:
            self._send_pieces()
        except (BlockingIOError, InterruptedError):
            self._watch()
        except OSError as error:
            self.drop()
            self._when_broken(error)
            return
        self._after_send()

    def _send_pieces(self) -> None:
        pieces = self.pieces
        while pieces:
            chosen = pieces if len(pieces) <= MAX_PIECES_PER_SEND else pieces[:MAX_PIECES_PER_SEND]
            if not self._lent:  # headers alone: cheaper in one piece
                sent = self._socket.send(chosen[0] if len(chosen) == 1 else b"".join(chosen))
            else:
                sent = self._socket.sendmsg(chosen)
            self.sent_bytes += sent
            if self.sent_bytes == self._pushed_bytes:
                pieces.clear()
            else:
                self._cut(sent)
            if self._lent:
                self._release_sent()
        if self._is_watching:
            self._stop_watching()

    def _cut(self, sent: int) -> None:
        """Drop what was sent from the front."""
        whole = 0
        for piece in self.pieces:
            if sent < len(piece):
                break
            sent -= len(piece)
            whole += 1
        del self.pieces[:whole]
        if sent:
            self.pieces[0] = memoryview(self.pieces[0])[sent:]

    def _release_sent(self) -> None:
        lent = self._lent
        while lent and lent[0][0] <= self.sent_bytes:
            lent.popleft()[1].release()

    def _watch(self) -> None:
        if not self._is_watching:
            self._is_watching = True
            self._loop.add_writer(self._socket, self._send)

    def _stop_watching(self) -> None:
        if self._is_watching:
            self._is_watching = False
            self._loop.remove_writer(self._socket)


def _nothing() -> None:
    """Nobody has more to say."""
