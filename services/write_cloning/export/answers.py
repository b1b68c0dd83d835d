"""Answers: how a request that is done, or that is refused, becomes a reply. Hot.

What is under way is counted here: whoever submits a request counts it in, and only its answer counts it out. It must not know
how requests come in, nor how replies leave.
"""

import errno
import os
from collections.abc import Callable, Coroutine

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.export.block_status import status_chunks
from services.write_cloning.export.exported import ExportedVolume
from services.write_cloning.outbox import Outbox
from services.write_cloning.volume.requests import Request
from shared.nbd import replies
from shared.nbd.constants import Command
from shared.nbd.errors import wire_error
from shared.nbd.exports import Agreement
from shared.nbd.requests import Verdict

Spawn = Callable[[Coroutine[object, object, None]], object]

_success = replies.success


class Answers:
    """Those of one connection.

    A request names one of `on_write`, `on_read` and `on_other` as what completes it. The counts are plain attributes,
    because a call for each request would be felt.
    """

    __slots__ = (
        "_agreement",
        "_give_up",
        "_has_structured_replies",
        "_outbox",
        "_spawn",
        "_volume",
        "_when_idle",
        "_written",
        "in_flight",
        "on_other",
        "on_read",
        "on_write",
        "payload_bytes",
    )

    def __init__(
        self,
        outbox: Outbox,
        volume: ExportedVolume,
        agreement: Agreement,
        spawn: Spawn,
        when_idle: Callable[[], None],
        give_up: Callable[[Exception], None],
    ) -> None:
        """`spawn` starts a task that somebody watches over; for block status alone.

        `when_idle` is called after an answer that leaves nothing under way, `give_up` with an error of ours.
        """
        self._outbox = outbox
        self._volume = volume
        self._agreement = agreement
        self._has_structured_replies = agreement.has_structured_replies
        self._spawn = spawn
        self._when_idle = when_idle
        self._give_up = give_up
        self.in_flight = 0  # requests
        self.payload_bytes = 0  # of theirs; `asked_bytes` is what a request counts
        self._written: list[Request] = []  # done, and answered together before the outbox sends

        # Bound once: making a bound method costs more than calling it.
        self.on_write = self._write_done
        self.on_read = self._read_done
        self.on_other = self._other_done

    def tell_status(self, cookie: int, offset: int, length: int, *, only_one: bool) -> None:
        """Answer a block status request, later."""
        self._spawn(self._tell_status(cookie, offset, length, only_one=only_one))

    def answer_at_once(self, verdict: Verdict) -> None:
        """Answer what the volume need not see."""
        if verdict.error:
            self.refuse(verdict.cookie, verdict.error, verdict.sentence)
        elif verdict.command == Command.READ and self._has_structured_replies:
            self._outbox.push(replies.empty_success(verdict.cookie))
        else:
            self._outbox.push(replies.success(verdict.cookie))

    def refuse(self, cookie: int, error: int, sentence: str) -> None:
        """Answer with an error of the protocol."""
        if self._has_structured_replies:
            self._outbox.push(replies.error_chunk(cookie, error, sentence))
        else:
            self._outbox.push(replies.simple_error(cookie, error))

    def _write_done(self, request: Request) -> None:
        written = self._written
        if not written:
            self._outbox.schedule()
        written.append(request)

    def answer_written(self) -> None:
        """Answer the writes that are done. The outbox asks for it, once for all that one loop iteration has completed."""
        written = self._written
        if not written:
            return
        self._written = []
        answers: list[bytes] = []
        payload: Buffer | None = None
        payloads = 0  # in that buffer: mostly it is the same one
        for request in written:
            self.payload_bytes -= request.asked_bytes
            if request.buffer is not payload:
                if payload is not None:
                    payload.release(payloads)
                payload, payloads = request.buffer, 0
            payloads += 1
            if request.error:
                self._answer_error(request)
            else:
                answers.append(_success(request.cookie))
        if payload is not None:
            payload.release(payloads)
        self._outbox.push_all(answers)
        self.in_flight -= len(written)
        if not self.in_flight:
            self._when_idle()

    def _read_done(self, request: Request) -> None:
        if self._written:  # answers leave in the order in which requests were done
            self.answer_written()
        self.in_flight -= 1
        length = request.length
        self.payload_bytes -= request.asked_bytes
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
        if not self.in_flight:
            self._when_idle()

    def _other_done(self, request: Request) -> None:
        if self._written:  # answers leave in the order in which requests were done
            self.answer_written()
        self.in_flight -= 1
        if request.error:
            self._answer_error(request)
        else:
            self._outbox.push(replies.success(request.cookie))
        if not self.in_flight:
            self._when_idle()

    async def _tell_status(self, cookie: int, offset: int, length: int, *, only_one: bool) -> None:
        try:
            contexts = self._agreement.contexts
            chunks = await status_chunks(self._volume, contexts, cookie, offset, length, only_one=only_one)
            for chunk in chunks:
                self._outbox.push(chunk)
        except OSError as error:
            self.refuse(cookie, wire_error(error.errno or errno.EIO), str(error))
        except Exception as error:  # noqa: BLE001 (reported, and the client loses its connection)
            self._give_up(error)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._when_idle()

    def _answer_error(self, request: Request) -> None:
        self._volume.note_error(request)
        error = wire_error(request.error, may_be_unsupported=request.fast)
        self.refuse(request.cookie, error, os.strerror(request.error))
