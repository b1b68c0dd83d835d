"""The submission of requests that were parsed: each goes to the volume as soon as window and memory allow. Hot.

    found -> request -> volume
          -> tray                (reads that need no waiting)

The window bounds what is under way, with the replies that are not sent yet: so many requests, so many bytes of payload. It must
not know how requests come in, nor what becomes of them.
"""

from collections.abc import Callable

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.export.answers import Answers
from services.write_cloning.export.exported import ExportedVolume
from services.write_cloning.export.inbox import Inbox
from services.write_cloning.export.limits import AT_ONCE_BYTES, Limits
from services.write_cloning.export.tray import Tray
from services.write_cloning.outbox import Outbox
from services.write_cloning.volume.requests import Kind, Request
from shared.nbd.constants import Command, CommandFlag
from shared.nbd.requests import WireRequest

_WRITE, _READ = int(Command.WRITE), int(Command.READ)
_WITH_PAYLOAD = frozenset({_WRITE, _READ})
_FUA, _NO_HOLE, _REQ_ONE, _FAST_ZERO = (
    int(flag) for flag in (CommandFlag.FUA, CommandFlag.NO_HOLE, CommandFlag.REQ_ONE, CommandFlag.FAST_ZERO)
)
_OTHER_KINDS = {
    int(Command.FLUSH): Kind.FLUSH,
    int(Command.TRIM): Kind.TRIM,
    int(Command.CACHE): Kind.CACHE,
    int(Command.WRITE_ZEROES): Kind.ZERO,
}
_WRITE_KIND, _READ_KIND = Kind.WRITE, Kind.READ


class Submission:
    """That of one connection. `found` is set by whoever parses, with `next` at 0; their payloads lie in the inbox."""

    __slots__ = (
        "_answers",
        "_block_mask",
        "_in_place",
        "_inbox",
        "_max_in_flight",
        "_max_payload_bytes",
        "_outbox",
        "_serve_at_once",
        "_submit_all",
        "_take",
        "_tray",
        "found",
        "next",
    )

    def __init__(
        self,
        volume: ExportedVolume,
        inbox: Inbox,
        outbox: Outbox,
        tray: Tray,
        answers: Answers,
        take: Callable[[int], Buffer | None],
        limits: Limits,
    ) -> None:
        """`take` gives a buffer, or None when there is no memory now."""
        self.found: list[WireRequest] = []  # parsed; from `next` on not submitted yet
        self.next = 0
        self._inbox = inbox
        self._outbox = outbox
        self._tray = tray
        self._serve_at_once = tray.serve
        self._answers = answers
        self._take = take
        self._submit_all = volume.submit_all
        self._block_mask = volume.alignment_bytes - 1
        self._in_place = volume.alignment_bytes == 1
        self._max_in_flight = limits.requests_per_connection
        self._max_payload_bytes = limits.payload_bytes_per_connection

    def submit_found(self) -> bool:
        """Submit what was parsed; False when the window is full or memory is short."""
        batch: list[Request] = []
        try:
            is_all = self._prepare(self.found, self.next, batch)
        finally:
            self._tray.hand_over()
        if batch:
            self._submit_all(batch)
        return is_all

    def is_window_full(self) -> bool:
        """Whether another large payload has to wait."""
        answers, outbox = self._answers, self._outbox
        return (
            answers.in_flight + len(outbox.pieces) >= self._max_in_flight
            or answers.payload_bytes + outbox.unsent_bytes >= self._max_payload_bytes
        )

    def refuse_rest(self, error: int, sentence: str) -> None:
        """Answer with an error what was not submitted yet."""
        for _, _, cookie, _, _, _ in self.found[self.next :]:
            self._answers.refuse(cookie, error, sentence)
        self.forget()

    def forget(self) -> None:
        """Submit nothing of what was found."""
        self.found = []
        self.next = 0

    def _prepare(self, found: list[WireRequest], at: int, batch: list[Request]) -> bool:
        """Make requests of what was parsed, as far as window and memory allow; what needs none is served at once."""
        answers, outbox, received = self._answers, self._outbox, self._inbox.buffer
        in_place, on_write = self._in_place, answers.on_write
        # Nothing completes meanwhile: what is left of the window only shrinks.
        requests_left = self._max_in_flight - answers.in_flight - len(outbox.pieces)
        bytes_left = self._max_payload_bytes - answers.payload_bytes - outbox.unsent_bytes
        payloads_in_place = 0
        if received is not None:
            received.retain()  # whatever happens to the inbox meanwhile
        count = len(found)
        while at < count:
            self.next = at
            if requests_left <= 0 or bytes_left <= 0:
                break
            command, flags, cookie, offset, length, position = found[at]
            requests_left -= 1
            if command == _WRITE and in_place:  # the payload is used where it was received
                request = Request(_WRITE_KIND, offset, length, on_write, cookie, received, position)
                if flags & _FUA:
                    request.durable = True
                payloads_in_place += 1
                answers.payload_bytes += length
                answers.in_flight += 1
                batch.append(request)
            elif (
                command != _READ or length > AT_ONCE_BYTES or not self._serve_at_once(cookie, offset, length)
            ):
                if not self._prepare_one(found[at], batch):
                    break
                if command not in _WITH_PAYLOAD:
                    length = 0
            bytes_left -= length
            at += 1
        else:
            self.found = []
            self.next = 0
        if received is not None:
            received.retain(payloads_in_place)
            received.release()
        # Less: so many requests were refused, and the replies to them are not sent yet.
        return at == count and requests_left >= 0

    def _prepare_one(self, wire_request: WireRequest, batch: list[Request]) -> bool:
        """Make a request that needs memory, or has no payload in either direction; False when memory is short."""
        command, flags, cookie, offset, length, position = wire_request
        answers = self._answers
        if command not in _WITH_PAYLOAD:
            self._prepare_other(command, flags, cookie, offset, length, batch)
            return True
        if command == _WRITE:
            buffer = self._aligned_payload(position, length)
            complete, kind = answers.on_write, _WRITE_KIND
        else:
            is_aligned = not (offset | length) & self._block_mask
            buffer = self._take(length if is_aligned else length + 2 * self._block_mask)
            complete, kind = answers.on_read, _READ_KIND
        if buffer is None:
            return False
        request = Request(kind, offset, length, complete, cookie, buffer)
        request.durable = command == _WRITE and flags & _FUA != 0
        answers.payload_bytes += length
        answers.in_flight += 1
        batch.append(request)
        return True

    def _prepare_other(
        self, command: int, flags: int, cookie: int, offset: int, length: int, batch: list[Request]
    ) -> None:
        self._answers.in_flight += 1
        if command == Command.BLOCK_STATUS:
            self._answers.tell_status(cookie, offset, length, only_one=flags & _REQ_ONE != 0)
            return
        request = Request(_OTHER_KINDS[command], offset, length, self._answers.on_other, cookie)
        request.durable = flags & _FUA != 0
        request.may_punch = flags & _NO_HOLE == 0
        request.fast = flags & _FAST_ZERO != 0
        batch.append(request)

    def _aligned_payload(self, position: int, length: int) -> Buffer | None:
        """A write's payload in a buffer of its own; None when memory is short."""
        buffer = self._take(length)
        if buffer is not None:
            buffer.view[:length] = self._inbox.view[position : position + length]
        return buffer
