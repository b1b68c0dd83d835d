"""One client in the transmission phase. Hot: nothing here makes a task, a future or a log line for a request.

    readable -> inbox -> parser -> submission -> volume        (as many requests as one read brought)
                                              -> tray -> outbox   (reads that need no waiting)
    volume completes -> answers -> outbox -> one send          (as many replies as one loop iteration brought)

Here are the reading, and the client's life: when to read on, when to stop, when it is over.

Back-pressure: requests are admitted only within a window (requests under way with their unsent replies, those to refused
requests too, and bytes of payload); beyond it, or when the buffer pool is empty, nothing more is read until there is
room, so that the kernel's socket buffer holds the client back. Requests that were submitted are always seen to their
end, whatever happens to the client: `run` returns only then.

It must not know how a volume does its work.
"""

import asyncio
from collections.abc import Callable

from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.export.alertness import Alertness
from services.write_cloning.export.answers import Answers, Spawn
from services.write_cloning.export.exported import ExportedVolume
from services.write_cloning.export.inbox import Inbox
from services.write_cloning.export.limits import INLINE_PAYLOAD_BYTES, Limits
from services.write_cloning.export.ration import Ration
from services.write_cloning.export.submission import Submission
from services.write_cloning.export.tray import Tray
from services.write_cloning.export.wire import Wire
from services.write_cloning.outbox import Outbox
from services.write_cloning.resets import raise_if_reset
from services.write_cloning.volume.requests import Kind, Request
from shared.nbd.constants import REQUEST_BYTES, CommandFlag, NbdError
from shared.nbd.requests import RequestParser, WireRequest
from shared.nbd.server_handshake import Entered

_FUA = int(CommandFlag.FUA)
_WRITE_KIND = Kind.WRITE


class Connection:
    """Serves one client until it leaves, breaks the protocol, or `close` or `sever` ends it."""

    def __init__(
        self,
        wire: Wire,
        entered: Entered,
        volume: ExportedVolume,
        pool: BufferPool,
        limits: Limits,
        spawn: Spawn,
        when_short: Callable[[], None],
        alertness: Alertness,
    ) -> None:
        """`spawn` starts a task that somebody watches over, for block status alone; `when_short` says that memory is."""
        self._loop = asyncio.get_running_loop()
        self._wire = wire
        self._socket = wire.connection
        self._early_bytes = entered.early_bytes
        self._submit = volume.submit
        self._expect = alertness.expect
        self._limits = limits
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self.reason = ""  # why it ended, for people

        self._parser = RequestParser(entered.agreement, INLINE_PAYLOAD_BYTES)
        self._ration = Ration(self._loop, pool, self._go_on_if_stalled, when_short)
        self._take = self._ration.take
        self._inbox = Inbox(self._take)
        self._receive_into = wire.recv_into

        self._large: Buffer | None = None  # the payload that is being received straight into its buffer
        self._large_filled = 0
        self._large_length = 0
        self._large_bytes = 0  # of all such payloads that came in full
        self._reads_header_alone = False  # after a large payload another one is likely: do not read into it

        self._outbox = Outbox(self._loop, wire, self._after_send, self._lose, self._gather_answers)
        tray = Tray(
            pool,
            self._outbox,
            volume.read_at_once,
            has_structured_replies=entered.agreement.has_structured_replies,
        )
        self._answers = Answers(self._outbox, volume, entered.agreement, spawn, self._rest, self._give_up)
        self._submission = Submission(
            volume, self._inbox, self._outbox, tray, self._answers, self._take, limits
        )
        self._submit_found = self._submission.submit_found

        self._is_reading = False
        self._is_stalled = False
        self._is_over = False  # no more requests are read
        self._is_severed = False  # and no more replies are sent
        self._linger: asyncio.TimerHandle | None = None

        self._kept_bytes = 0  # at the last sweep: what waited for the client
        self._moved_bytes = 0  # until the last sweep

    async def run(self) -> None:
        """Serve the client; returns when it is gone and nothing of its requests is under way."""
        self._is_stalled = True
        self._go_on_if_stalled()
        try:
            await self._finished
        finally:
            self.sever("the server stopped")
            self._ration.close()

    def close(self) -> None:
        """Take no more requests; what is under way is finished and answered, then the client is hung up on."""
        if self._is_over:
            return
        self._submission.refuse_rest(NbdError.ESHUTDOWN, "the server is shutting down")
        self._end("closed by the server")

    def sever(self, reason: str) -> None:
        """Hang up now; what is under way still comes to its end, unanswered."""
        if self._is_severed:
            return
        self._is_severed = True
        self._submission.forget()
        self._end(reason)
        if not self._finished.done():
            self.reason = reason
        if self._linger is not None:
            self._linger.cancel()
        self._outbox.drop()
        self._wire.close()
        self._finish_if_idle()

    def sweep(self) -> bool:
        """See `Swept`. Half of what was kept waiting for the client must have moved, or it is hung up on.

        Less would not do: a client that takes or sends a byte now and then holds its memory like one that does nothing.
        """
        is_short = self._ration.is_pool_contended
        large_bytes, kept_bytes = self._large_bytes, 0
        if self._large is not None:
            large_bytes += self._large_filled
            kept_bytes += self._large_length
        if self._outbox.is_blocked:
            kept_bytes += self._outbox.unsent_bytes
        moved_bytes = self._outbox.sent_bytes + large_bytes
        if is_short and 2 * (moved_bytes - self._moved_bytes) < self._kept_bytes:
            self.sever("it let too little of its data move while others waited for memory")
        self._moved_bytes = moved_bytes
        self._kept_bytes = kept_bytes if is_short else 0
        return is_short

    # -------------------------------------------------------------------------------------------------------- receiving

    def _on_readable(self) -> None:
        try:
            if self._large is not None:
                self._receive_large(self._large)
            else:
                self._receive()
            if self._is_reading:
                raise_if_reset(self._socket)
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
        self._expect(self._answers.in_flight)  # that the device is done

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
        inbox, parser, submission = self._inbox, self._parser, self._submission
        submission.found, inbox.parsed = parser.parse(inbox.view, inbox.parsed, inbox.filled)
        submission.next = 0
        if parser.verdicts:
            for verdict in parser.verdicts:
                self._answers.answer_at_once(verdict)
            parser.verdicts.clear()

    def _proceed(self) -> None:
        """Go as far as window and memory allow: submit what was found, find more, read on."""
        if self._early_bytes and not self._take_early_bytes():
            self._stall()
            return
        while self._submit_found():
            pending = self._parser.pending
            if self._is_over or (pending is None and not self._parser.has_more):
                self._go_on_reading()
                return
            if pending is not None:
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
            self._wire.start_reading(self._on_readable)

    def _stall(self) -> None:
        """Read nothing more until replies were sent or memory was released."""
        self._is_stalled = not self._is_over
        self._stop_reading()

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._wire.stop_reading()

    def _go_on_if_stalled(self) -> None:
        if self._is_stalled:
            try:
                self._proceed()
            except Exception as error:  # noqa: BLE001 (reported, and the client loses its connection)
                self._give_up(error)

    def _gather_answers(self) -> None:
        try:
            self._answers.answer_written()
        except Exception as error:  # noqa: BLE001 (reported, and the client loses its connection)
            self._give_up(error)

    def _after_send(self) -> None:
        self._expect(self._answers.in_flight)  # the next request
        if self._is_stalled:
            self._go_on_if_stalled()
        if not self._answers.in_flight:
            self._rest()

    # --------------------------------------------------------------------------------------------------- large payloads

    def _begin_large(self, pending: WireRequest) -> bool:
        """Give a large payload its own buffer, with what came of it; False when window or memory has no room now."""
        if self._submission.is_window_full():
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
        self._large_bytes += length
        answers = self._answers
        request = Request(_WRITE_KIND, offset, length, answers.on_write, cookie, buffer)
        request.durable = flags & _FUA != 0
        answers.payload_bytes += length
        answers.in_flight += 1
        self._submit(request)

    # ----------------------------------------------------------------------------------------------------------- ending

    def _rest(self) -> None:
        """Nothing is under way: hold no memory, and end if it is time to."""
        if not self._inbox.unparsed and not self._submission.found:
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
        if self._answers.in_flight or self._finished.done():
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
