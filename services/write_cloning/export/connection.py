"""One client in the transmission phase. Hot: nothing here makes a task, a future or a log line for a request.

    readable -> inbox -> parser -> submit to the volume        (as many requests as one read brought)
                                -> tray -> outbox              (reads that need no waiting)
    volume completes -> outbox -> one send                     (as many replies as one loop iteration brought)

Back-pressure: requests are admitted only within a window (requests under way with their unsent replies, and bytes of
payload); beyond it, or when the buffer pool is empty, nothing more is read until there is room, so that the kernel's
socket buffer holds the client back. Requests that were submitted are always seen to their end, whatever happens to the
client: `run` returns only then.

It must not know how a volume does its work.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Coroutine

from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.export.block_status import status_chunks
from services.write_cloning.export.exported import ExportedVolume
from services.write_cloning.export.inbox import Inbox
from services.write_cloning.export.limits import AT_ONCE_BYTES, INLINE_PAYLOAD_BYTES, Limits
from services.write_cloning.export.outbox import Outbox
from services.write_cloning.export.ration import Ration
from services.write_cloning.export.tray import Tray
from services.write_cloning.volume.requests import Kind, Request
from shared.nbd import replies
from shared.nbd.constants import REQUEST_BYTES, Command, CommandFlag, NbdError
from shared.nbd.errors import wire_error
from shared.nbd.requests import RequestParser, Verdict, WireRequest
from shared.nbd.server_handshake import Entered

Spawn = Callable[[Coroutine[object, object, None]], object]

_WRITE, _READ = int(Command.WRITE), int(Command.READ)
_FUA, _NO_HOLE, _REQ_ONE, _FAST_ZERO = (
    int(flag) for flag in (CommandFlag.FUA, CommandFlag.NO_HOLE, CommandFlag.REQ_ONE, CommandFlag.FAST_ZERO)
)
_OTHER_KINDS = {
    int(Command.FLUSH): Kind.FLUSH,
    int(Command.TRIM): Kind.TRIM,
    int(Command.CACHE): Kind.CACHE,
    int(Command.WRITE_ZEROES): Kind.ZERO,
}
_success = replies.success
_WRITE_KIND, _READ_KIND = Kind.WRITE, Kind.READ


class Connection:
    """Serves one client until it leaves, breaks the protocol, or `close` or `sever` ends it."""

    def __init__(
        self,
        connection: socket.socket,
        entered: Entered,
        volume: ExportedVolume,
        pool: BufferPool,
        limits: Limits,
        spawn: Spawn,
    ) -> None:
        """`spawn` starts a task that somebody watches over; for block status alone."""
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._agreement = entered.agreement
        self._early_bytes = entered.early_bytes
        self._volume = volume
        self._submit = volume.submit
        self._limits = limits
        self._spawn = spawn
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self.reason = ""  # why it ended, for people

        self._parser = RequestParser(entered.agreement, INLINE_PAYLOAD_BYTES)
        self._found: list[WireRequest] = []  # parsed; from `_next` on not submitted yet
        self._next = 0
        self._ration = Ration(self._loop, pool, self._go_on_if_stalled)
        self._take = self._ration.take
        self._inbox = Inbox(self._take)
        self._receive_into = connection.recv_into
        self._block_mask = volume.alignment_bytes - 1
        self._in_place = volume.alignment_bytes == 1
        self._has_structured_replies = entered.agreement.has_structured_replies

        self._large: Buffer | None = None  # the payload that is being received straight into its buffer
        self._large_filled = 0
        self._large_length = 0
        self._reads_header_alone = False  # after a large payload another one is likely: do not read into it

        self._outbox = Outbox(self._loop, connection, self._after_send, self._lose)
        self._tray = Tray(
            pool, self._outbox, volume.read_at_once, has_structured_replies=self._has_structured_replies
        )
        self._serve_at_once = self._tray.serve
        self._push = self._outbox.push
        self._in_flight = 0
        self._payload_bytes = 0
        self._max_in_flight = limits.requests_per_connection
        self._max_payload_bytes = limits.payload_bytes_per_connection

        self._is_reading = False
        self._is_stalled = False
        self._is_over = False  # no more requests are read
        self._is_severed = False  # and no more replies are sent
        self._linger: asyncio.TimerHandle | None = None

        self._progress_at_sweep = -1

        # Bound once: making a bound method costs more than calling it.
        self._on_write = self._write_done
        self._on_read = self._read_done
        self._on_other = self._other_done

    async def run(self) -> None:
        """Serve the client; returns when it is gone and nothing of its requests is under way."""
        self._is_stalled = True
        self._go_on_if_stalled()
        try:
            await self._finished
        finally:
            self.sever("the server stopped")

    def close(self) -> None:
        """Take no more requests; what is under way is finished and answered, then the client is hung up on."""
        if self._is_over:
            return
        for _, _, cookie, _, _, _ in self._found[self._next :]:
            self._refuse(cookie, NbdError.ESHUTDOWN, "the server is shutting down")
        self._found = []
        self._next = 0
        self._end("closed by the server")

    def sever(self, reason: str) -> None:
        """Hang up now; what is under way still comes to its end, unanswered."""
        if self._is_severed:
            return
        self._is_severed = True
        self._found = []
        self._next = 0
        self._end(reason)
        if not self._finished.done():
            self.reason = reason
        if self._linger is not None:
            self._linger.cancel()
        self._outbox.drop()
        self._socket.close()
        self._finish_if_idle()

    def sweep(self) -> None:
        """Called now and then: a client that makes no progress while others wait for its memory is hung up on."""
        holds_back = self._large is not None or self._outbox.is_blocked
        if not holds_back or not self._ration.is_pool_contended:
            self._progress_at_sweep = -1
            return
        progress = self._outbox.sent_bytes + self._large_filled
        if progress == self._progress_at_sweep:
            self.sever("it made no progress while memory was short")
        self._progress_at_sweep = progress

    # -------------------------------------------------------------------------------------------------------- receiving

    def _on_readable(self) -> None:
        try:
            if self._large is not None:
                self._receive_large(self._large)
            else:
                self._receive()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001 (reported, and the client loses its connection)
            self._give_up(error)

    def _receive(self) -> None:
        inbox = self._inbox
        if not inbox.make_room(self._parser.needed_bytes):
            self._stall()
            return
        filled = inbox.filled
        if self._reads_header_alone:
            received = self._receive_into(inbox.view[filled : filled + REQUEST_BYTES])
            self._reads_header_alone = False
        else:
            received = self._receive_into(inbox.view[filled:])
        if not received:
            self._end("the client hung up")
            return
        inbox.filled = filled + received
        self._parse()
        self._proceed()

    def _receive_large(self, buffer: Buffer) -> None:
        received = self._receive_into(buffer.view[self._large_filled : self._large_length])
        if not received:
            self._end("the client hung up within a payload")
            return
        self._large_filled += received
        if self._large_filled == self._large_length:
            self._submit_large(buffer)
            self._reads_header_alone = True
            self._proceed()

    def _parse(self) -> None:
        inbox, parser = self._inbox, self._parser
        self._found, inbox.parsed = parser.parse(inbox.view, inbox.parsed, inbox.filled)
        self._next = 0
        if parser.verdicts:
            for verdict in parser.verdicts:
                self._answer_at_once(verdict)
            parser.verdicts.clear()

    def _proceed(self) -> None:
        """Go as far as window and memory allow: submit what was found, find more, read on."""
        if self._early_bytes and not self._take_early_bytes():
            self._stall()
            return
        while self._submit_found():
            pending = self._parser.pending
            if pending is None or self._is_over:
                self._go_on_reading()
                return
            if self._large is None and not self._begin_large(pending):
                break
            if self._large is not None:
                self._watch()
                return
            self._parse()
        self._stall()

    def _take_early_bytes(self) -> bool:
        """Treat what came along with the handshake as if it had just been received."""
        if not self._inbox.make_room(len(self._early_bytes)):
            return False
        self._inbox.append(self._early_bytes)
        self._early_bytes = b""
        self._parse()
        return True

    def _go_on_reading(self) -> None:
        parser = self._parser
        if parser.violation is not None:
            self._end(f"it broke the protocol: {parser.violation}")
        elif parser.is_finished:
            self._end("the client disconnected")
        else:
            self._watch()

    def _watch(self) -> None:
        self._is_stalled = False
        if not self._is_reading and not self._is_over:
            self._is_reading = True
            self._loop.add_reader(self._socket, self._on_readable)

    def _stall(self) -> None:
        """Read nothing more until replies were sent or memory was released."""
        self._is_stalled = not self._is_over
        self._stop_reading()

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._socket)

    def _go_on_if_stalled(self) -> None:
        if self._is_stalled:
            try:
                self._proceed()
            except Exception as error:  # noqa: BLE001 (reported, and the client loses its connection)
                self._give_up(error)

    # --------------------------------------------------------------------------------------------------- large payloads

    def _begin_large(self, pending: WireRequest) -> bool:
        """Give a large payload its own buffer, with what came of it; False when window or memory has no room now."""
        if self._is_window_full():
            return False
        length = pending[4]
        buffer = self._take(length)
        if buffer is None:
            return False
        self._large_length = length
        self._large_filled = self._inbox.take_out(buffer.view[:length])
        self._large = buffer
        if not self._inbox.unparsed:
            self._inbox.let_go()
        if self._large_filled == length:
            self._submit_large(buffer)
        return True

    def _submit_large(self, buffer: Buffer) -> None:
        pending = self._parser.pending
        if pending is None:
            raise RuntimeError("a large payload without its request")
        _, flags, cookie, offset, length, _ = pending
        self._parser.pending = None
        self._large = None
        request = Request(_WRITE_KIND, offset, length, self._on_write, self, cookie)
        request.buffer = buffer
        request.durable = flags & _FUA != 0
        request.flags = length
        self._payload_bytes += length
        self._in_flight += 1
        self._submit(request)

    # ------------------------------------------------------------------------------------------------------- submitting

    def _submit_found(self) -> bool:
        """Submit what was parsed; False when the window is full or memory is short."""
        try:
            return self._submit_batch()
        finally:
            self._tray.hand_over()

    def _submit_batch(self) -> bool:
        found = self._found
        outbox, inbox = self._outbox, self._inbox
        in_place = self._in_place
        # Nothing completes meanwhile: what is left of the window only shrinks.
        requests_left = self._max_in_flight - self._in_flight - len(outbox.pieces)
        bytes_left = self._max_payload_bytes - self._payload_bytes - outbox.unsent_bytes
        while self._next < len(found):
            if requests_left <= 0 or bytes_left <= 0:
                return False
            command, flags, cookie, offset, length, position = found[self._next]
            requests_left -= 1
            if command == _WRITE:
                buffer = inbox.buffer if in_place else self._aligned_payload(position, length)
                if buffer is None:
                    return False
                request = Request(_WRITE_KIND, offset, length, self._on_write, self, cookie)
                request.buffer = buffer
                if in_place:  # the payload is used where it was received
                    buffer.retain()
                    request.start = position
                if flags & _FUA:
                    request.durable = True
            elif command == _READ:
                if length <= AT_ONCE_BYTES and self._serve_at_once(cookie, offset, length):
                    bytes_left -= length
                    self._next += 1
                    continue
                aligned = not (offset | length) & self._block_mask
                buffer = self._take(length if aligned else length + 2 * self._block_mask)
                if buffer is None:
                    return False
                request = Request(_READ_KIND, offset, length, self._on_read, self, cookie)
                request.buffer = buffer
            else:
                self._next += 1
                self._submit_other(command, flags, cookie, offset, length)
                continue
            request.flags = length  # what this request counts in the window, whatever the volume makes of it
            bytes_left -= length
            self._payload_bytes += length
            self._next += 1
            self._in_flight += 1
            self._submit(request)
        self._found = []
        self._next = 0
        return True

    def _is_window_full(self) -> bool:
        outbox = self._outbox
        return (
            self._in_flight + len(outbox.pieces) >= self._max_in_flight
            or self._payload_bytes + outbox.unsent_bytes >= self._max_payload_bytes
        )

    def _submit_other(self, command: int, flags: int, cookie: int, offset: int, length: int) -> None:
        """Submit what has no payload in either direction."""
        self._in_flight += 1
        if command == Command.BLOCK_STATUS:
            self._spawn(self._tell_status(cookie, offset, length, only_one=flags & _REQ_ONE != 0))
            return
        request = Request(_OTHER_KINDS[command], offset, length, self._on_other, self, cookie)
        request.durable = flags & _FUA != 0
        request.may_punch = flags & _NO_HOLE == 0
        request.fast = flags & _FAST_ZERO != 0
        self._submit(request)

    def _aligned_payload(self, position: int, length: int) -> Buffer | None:
        """A write's payload in a buffer of its own; None when memory is short."""
        buffer = self._take(length)
        if buffer is not None:
            buffer.view[:length] = self._inbox.view[position : position + length]
        return buffer

    # -------------------------------------------------------------------------------------------------------- answering

    def _write_done(self, request: Request) -> None:
        self._in_flight -= 1
        self._payload_bytes -= request.flags
        buffer = request.buffer
        if buffer is not None:
            buffer.release()
        if request.error:
            self._answer_error(request)
        else:
            self._push(_success(request.cookie))
        if not self._in_flight:
            self._rest()

    def _read_done(self, request: Request) -> None:
        self._in_flight -= 1
        length = request.length
        self._payload_bytes -= request.flags
        buffer = request.buffer
        if buffer is None:
            raise RuntimeError("a read without its buffer")
        if request.error:
            buffer.release()
            self._answer_error(request)
        elif self._has_structured_replies:
            header = replies.data_chunk(request.cookie, request.offset, length)
            self._outbox.push_data(header, buffer, request.start, length)
        else:
            self._outbox.push_data(replies.success(request.cookie), buffer, request.start, length)
        if not self._in_flight:
            self._rest()

    def _other_done(self, request: Request) -> None:
        self._in_flight -= 1
        if request.error:
            self._answer_error(request)
        else:
            self._outbox.push(replies.success(request.cookie))
        if not self._in_flight:
            self._rest()

    async def _tell_status(self, cookie: int, offset: int, length: int, *, only_one: bool) -> None:
        """Answer a block status request."""
        try:
            contexts = self._agreement.contexts
            chunks = await status_chunks(self._volume, contexts, cookie, offset, length, only_one=only_one)
            for chunk in chunks:
                self._outbox.push(chunk)
        except OSError as error:
            self._refuse(cookie, wire_error(error.errno or errno.EIO), str(error))
        except Exception as error:  # noqa: BLE001 (reported, and the client loses its connection)
            self._give_up(error)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._rest()

    def _answer_at_once(self, verdict: Verdict) -> None:
        if verdict.error:
            self._refuse(verdict.cookie, verdict.error, verdict.sentence)
        elif verdict.command == Command.READ and self._has_structured_replies:
            self._outbox.push(replies.empty_success(verdict.cookie))
        else:
            self._outbox.push(replies.success(verdict.cookie))

    def _answer_error(self, request: Request) -> None:
        error = wire_error(request.error, may_be_unsupported=request.fast)
        self._refuse(request.cookie, error, os.strerror(request.error))

    def _refuse(self, cookie: int, error: int, sentence: str) -> None:
        if self._has_structured_replies:
            self._outbox.push(replies.error_chunk(cookie, error, sentence))
        else:
            self._outbox.push(replies.simple_error(cookie, error))

    def _after_send(self) -> None:
        if self._is_stalled:
            self._go_on_if_stalled()
        if not self._in_flight:
            self._rest()

    # ----------------------------------------------------------------------------------------------------------- ending

    def _rest(self) -> None:
        """Nothing is under way: hold no memory, and end if it is time to."""
        if not self._inbox.unparsed and not self._found:
            self._inbox.let_go()
        if self._is_over:
            self._finish_if_idle()

    def _end(self, reason: str) -> None:
        """Read no more. A payload that did not come in full is forgotten with its request."""
        if self._is_over:
            return
        self._is_over = True
        self._is_stalled = False
        self.reason = reason
        self._stop_reading()
        self._release_memory()
        self._finish_if_idle()

    def _release_memory(self) -> None:
        """Give back what was held for requests that will not come."""
        self._ration.give_up()
        if self._large is not None:
            self._large.release()
            self._large = None
        self._inbox.let_go()

    def _finish_if_idle(self) -> None:
        """Finish when all is done; a client that does not take its last replies is waited for, but not for ever."""
        if self._in_flight or self._finished.done():
            return
        if self._is_severed or not self._outbox.unsent_bytes:
            self._finished.set_result(None)
        elif self._linger is None:
            reason = f"{self.reason}, and did not take its last replies"
            self._linger = self._loop.call_later(self._limits.linger_seconds, self.sever, reason)

    def _lose(self, error: OSError) -> None:
        self.sever(f"the connection broke: {error}")

    def _give_up(self, error: Exception) -> None:
        """We are wrong: say so where the service hears it, and stop counting on what is under way here."""
        context = {"message": "a client lost its connection to an error of ours", "exception": error}
        self._loop.call_exception_handler(context)
        self.sever("an internal error")
        if not self._finished.done():
            self._finished.set_result(None)
