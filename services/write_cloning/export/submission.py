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
        "_submit",
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
        self._submit = volume.submit
        self._block_mask = volume.alignment_bytes - 1
        self._in_place = volume.alignment_bytes == 1
        self._max_in_flight = limits.requests_per_connection
        self._max_payload_bytes = limits.payload_bytes_per_connection

    def submit_found(self) -> bool:
        """Submit what was parsed; False when the window is full or memory is short."""
        try:
            return self._submit_batch(self.found, self.next)
        finally:
            self._tray.hand_over()

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

    def _submit_batch(self, found: list[WireRequest], at: int) -> bool:
        answers, outbox, inbox = self._answers, self._outbox, self._inbox
        in_place, on_write, submit = self._in_place, answers.on_write, self._submit
        # Nothing completes meanwhile: what is left of the window only shrinks.
        requests_left = self._max_in_flight - answers.in_flight - len(outbox.pieces)
        bytes_left = self._max_payload_bytes - answers.payload_bytes - outbox.unsent_bytes
        count = len(found)
        while at < count:
            self.next = at
            if requests_left <= 0 or bytes_left <= 0:
                return False
            command, flags, cookie, offset, length, position = found[at]
            requests_left -= 1
            if command == _WRITE:
                buffer = inbox.buffer if in_place else self._aligned_payload(position, length)
                if buffer is None:
                    return False
                if in_place:  # the payload is used where it was received
                    buffer.retain()
                else:
                    position = 0
                request = Request(_WRITE_KIND, offset, length, on_write, cookie, buffer, position)
                if flags & _FUA:
                    request.durable = True
            elif command == _READ:
                if length <= AT_ONCE_BYTES and self._serve_at_once(cookie, offset, length):
                    bytes_left -= length
                    at += 1
                    continue
                aligned = not (offset | length) & self._block_mask
                buffer = self._take(length if aligned else length + 2 * self._block_mask)
                if buffer is None:
                    return False
                request = Request(_READ_KIND, offset, length, answers.on_read, cookie, buffer)
            else:
                at += 1
                self._submit_other(command, flags, cookie, offset, length)
                continue
            bytes_left -= length
            answers.payload_bytes += length
            at += 1
            answers.in_flight += 1
            submit(request)
        self.found = []
        self.next = 0
        # Less: so many requests were refused, and the replies to them are not sent yet.
        return requests_left >= 0

    def _submit_other(self, command: int, flags: int, cookie: int, offset: int, length: int) -> None:
        """Submit what has no payload in either direction."""
        self._answers.in_flight += 1
        if command == Command.BLOCK_STATUS:
            self._answers.tell_status(cookie, offset, length, only_one=flags & _REQ_ONE != 0)
            return
        request = Request(_OTHER_KINDS[command], offset, length, self._answers.on_other, cookie)
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
