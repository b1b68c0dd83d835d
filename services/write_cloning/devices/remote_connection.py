"""One connection to an NBD server in the transmission phase: requests out, replies in. Hot.

What one loop iteration asks leaves in one system call; replies are parsed where they arrive, and the content of a read goes
straight into the caller's buffer. A request costs no task, no future and no log line. No more than `DEPTH` requests are with
the server at once; the others wait here, and nothing of them has been sent.

A connection breaks once and for all: by the network, by the server, by a reply that breaks the protocol, or because it is
severed. It is never made again and nothing is ever sent again, because nobody knows what the server has done. Every request
under way is answered with the reason, and so is every one that comes later. Those that change the device and had been handed
to the socket are *lost*: the server, or a machine in between, may still have them, and may do them at any later time, whatever
has been written by then. There is no reply to wait for and no lock that the kernel would hold, so `lost` stays what it is
until `forget_lost`, which somebody calls who knows from elsewhere that the old connection is gone.

This file must not know what a device is for, nor what makes a range durable.
"""

import asyncio
import errno
import logging
import socket
from collections import deque

from services.write_cloning.devices.buffers import ZEROES, ZEROES_BYTES, Buffer
from services.write_cloning.devices.engine import answer
from services.write_cloning.devices.interface import Done
from services.write_cloning.outbox import Outbox
from services.write_cloning.resets import raise_if_reset
from shared.logs.about import about
from shared.nbd.client_replies import Data, Extents, Hole, Reply, ReplyParser
from shared.nbd.client_replies import Done as Answered
from shared.nbd.constants import Command
from shared.nbd.errors import FatalPeerError, errno_of
from shared.nbd.requests import pack_request

log = logging.getLogger(__name__)

DEPTH = 128
"""How many requests the server has at most; as many as the kernel has of a local device."""

RECEIVE_BYTES = 256 << 10
"""What one read takes in: a batch of small replies, or a part of a large one."""

_CHANGES = frozenset({Command.WRITE, Command.WRITE_ZEROES, Command.TRIM})
_READ, _WRITE = Command.READ, Command.WRITE

ExtentsFound = list[Extents]
_Slot = tuple[
    Command, int, Buffer | None, int, Done, object
]  # and for BLOCK_STATUS the context is the list to fill
_Answers = list[tuple[Done, object, int]]
_Waiting = tuple[Command, int, int, int, Buffer | None, int, Done, object]


class RemoteConnection:
    """See above. Belongs to the loop that it was made in."""

    __slots__ = (
        "_cookie",
        "_filled",
        "_idle",
        "_inbox",
        "_is_closed",
        "_loop",
        "_name",
        "_outbox",
        "_parser",
        "_slots",
        "_socket",
        "_view",
        "_waiting",
        "error",
        "lost",
        "migration",
    )

    def __init__(self, name: str, connection: socket.socket, early_bytes: bytes) -> None:
        """Take over a socket that does not block, and what the server has said since the handshake."""
        self.error = 0  # why it is broken
        self.lost = 0
        self.migration = ""  # that it serves, for the log
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._parser = ReplyParser()
        self._outbox = Outbox(self._loop, connection, _nothing, self._lose)
        self._slots: dict[int, _Slot] = {}
        self._waiting: deque[_Waiting] = deque()
        self._cookie = 0
        self._inbox = bytearray(max(RECEIVE_BYTES, len(early_bytes)))
        self._view = memoryview(self._inbox)
        self._filled = 0
        self._is_closed = False
        self._idle: asyncio.Future[None] | None = None
        self._loop.add_reader(connection, self._receive)
        if early_bytes:
            self._view[: len(early_bytes)] = early_bytes
            self._filled = len(early_bytes)
            self._loop.call_soon(self._take_in)

    @property
    def in_flight(self) -> int:
        """Requests that are not answered, sent or not."""
        return len(self._slots) + len(self._waiting)

    # ------------------------------------------------------------------ requests

    def ask(
        self,
        command: Command,
        flags: int,
        offset: int,
        length: int,
        buffer: Buffer | None,
        start: int,
        done: Done,
        context: object,
    ) -> None:
        """Send one request, or have it wait its turn; a payload, or room for one, begins at byte `start` of the buffer."""
        if self.error:
            self._loop.call_soon(done, context, self.error)
        elif len(self._slots) >= DEPTH:
            self._waiting.append((command, flags, offset, length, buffer, start, done, context))
        else:
            self._send(command, flags, offset, length, buffer, start, done, context)

    def _send(
        self,
        command: Command,
        flags: int,
        offset: int,
        length: int,
        buffer: Buffer | None,
        start: int,
        done: Done,
        context: object,
    ) -> None:
        self._cookie = cookie = self._cookie + 1
        self._slots[cookie] = (command, offset, buffer, start, done, context)
        self._parser.expect(command, cookie, offset, length)
        header = pack_request(command, flags, cookie, offset, length)
        if command is _WRITE and buffer is not None:
            buffer.retain()  # until it is in the socket; the server may refuse the write before it has all of it
            self._outbox.push_data(header, buffer, start, length)
        else:
            self._outbox.push(header)

    def _send_waiting(self) -> None:
        waiting = self._waiting
        while waiting and len(self._slots) < DEPTH:
            self._send(*waiting.popleft())

    # ------------------------------------------------------------------ replies

    def _receive(self) -> None:
        try:
            count = self._socket.recv_into(self._view[self._filled :])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if not count:
            self.sever(errno.ECONNRESET, "the server has closed the connection")
            return
        self._filled += count
        self._take_in()
        if not (self.error or self._is_closed):
            try:
                raise_if_reset(self._socket)
            except OSError as error:
                self._lose(error)

    def _take_in(self) -> None:
        if self.error or self._is_closed:
            return
        try:
            replies, taken = self._parser.parse(self._view, 0, self._filled)
        except FatalPeerError as violation:
            self.sever(errno.EPROTO, f"the server broke the protocol: {violation}")
            return
        answered = self._place(replies)
        self._keep_rest(taken)
        if self._waiting:
            self._send_waiting()
        self._answer(answered)

    def _place(self, replies: list[Reply]) -> _Answers:
        """Put content where it belongs, before its place in the inbox is used again; and find who is to be answered."""
        answered: _Answers = []
        slots = self._slots
        for reply in replies:
            kind = type(reply)
            if kind is Answered:
                _, _, _, _, done, context = slots.pop(reply.cookie)
                answered.append((done, context, errno_of(reply.error) if reply.error else 0))  # type: ignore[union-attr]
                continue
            _, offset, buffer, start, _, context = slots[reply.cookie]
            if kind is Data and buffer is not None:
                _, at, position, length = reply  # type: ignore[misc]
                into = start + at - offset
                buffer.view[into : into + length] = self._view[position : position + length]
            elif isinstance(reply, Hole) and buffer is not None:
                _fill_with_zeroes(buffer, start + reply.offset - offset, reply.length)
            elif isinstance(reply, Extents) and isinstance(context, list):
                context.append(reply)
        return answered

    def _keep_rest(self, taken: int) -> None:
        """Keep what is not a whole message yet, with room for all of it."""
        rest = self._filled - taken
        needed_bytes = max(self._parser.needed_bytes, RECEIVE_BYTES)
        if needed_bytes != len(self._inbox):  # grown for one long message, and back again
            inbox = bytearray(max(needed_bytes, rest))
            inbox[:rest] = self._view[taken : self._filled]
            self._inbox, self._view = inbox, memoryview(inbox)
        elif taken and rest:
            self._view[:rest] = bytes(self._view[taken : self._filled])
        self._filled = rest

    def _answer(self, answered: _Answers) -> None:
        remaining = iter(answered)
        try:
            for done, context, error in remaining:
                answer(self._loop, done, context, error)
        except BaseException:  # the loop is being stopped, and may be started again
            self._loop.call_soon(self._answer, list(remaining))
            raise
        self._notice_idle()

    # ------------------------------------------------------------------ the end

    def sever(self, error: int, reason: str) -> None:
        """Break the connection, for a reason that everyone under way is told as an errno. Only the first reason counts."""
        if self.error or self._is_closed:
            return
        self.error = error
        self.lost = sum(command in _CHANGES for command, *_ in self._slots.values())
        under_way: _Answers = [(slot[4], slot[5], error) for slot in self._slots.values()]
        under_way += [(each[6], each[7], error) for each in self._waiting]
        log.error(
            "%s: the connection is broken: %s; %d requests were under way, %d of them may still land",
            self._name, reason, len(under_way), self.lost,
            extra=about(self.migration) if self.migration else None,
        )  # fmt: skip
        self._slots.clear()
        self._waiting.clear()
        self._let_go()
        self._loop.call_soon(self._answer, under_way)

    def forget_lost(self) -> None:
        """Somebody knows that what was lost will never land."""
        self.lost = 0

    async def close(self) -> None:
        """Wait until everything is answered, then say good-bye. A broken connection is closed already."""
        while self.in_flight:
            if self._idle is None or self._idle.done():
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)
        if not (self.error or self._is_closed):
            self._is_closed = True
            try:
                self._socket.send(pack_request(Command.DISC, 0, 0, 0, 0))
            except OSError as error:  # it is gone, which is what was wanted, and nothing was under way
                log.info("%s: closing: %s", self._name, error)
            self._let_go()

    def _lose(self, error: OSError) -> None:
        self.sever(error.errno or errno.EIO, str(error))

    def _let_go(self) -> None:
        self._outbox.drop()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _notice_idle(self) -> None:
        if self._idle is not None and not self._idle.done() and not self.in_flight:
            self._idle.set_result(None)


def _nothing() -> None:
    pass


def _fill_with_zeroes(buffer: Buffer, start: int, length: int) -> None:
    while length:
        piece = min(length, ZEROES_BYTES)
        buffer.view[start : start + piece] = ZEROES.view[:piece]
        start += piece
        length -= piece
