"""The bytes that came in: a pooled receive buffer whose payloads are used where they lie. Hot.

Writes that are carried out hold the buffer too, so it is filled front to back and only rewound when nobody else holds
it; when room runs short, a fresh one takes over, together with the request that is not complete yet. A connection that
has nothing under way holds no buffer at all, so that a thousand idle clients cost nothing.

It must not know what the bytes mean.
"""

from collections.abc import Callable

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.export.limits import RECEIVE_BYTES, SPARE_ROOM_BYTES

_NOTHING = memoryview(b"")


class Inbox:
    """Bytes from `parsed` to `filled` of `view` have come and are not understood yet."""

    __slots__ = ("_take", "buffer", "filled", "parsed", "view")

    def __init__(self, take: Callable[[int], Buffer | None]) -> None:
        """`take` gives a buffer, or None when there is no room now."""
        self._take = take
        self.buffer: Buffer | None = None
        self.view = _NOTHING
        self.filled = 0
        self.parsed = 0

    @property
    def unparsed(self) -> int:
        """How many bytes wait to be understood."""
        return self.filled - self.parsed

    def make_room(self, needed: int) -> bool:
        """Have room for the rest of a message of `needed` bytes, and some to spare; False when there is no memory now.

        `needed` must not exceed the size of a receive buffer.
        """
        buffer = self.buffer
        if buffer is not None:
            if self.parsed == self.filled and buffer.references == 1:
                self.filled = self.parsed = 0
                return True
            room = RECEIVE_BYTES - self.filled
            if room >= SPARE_ROOM_BYTES and RECEIVE_BYTES - self.parsed >= needed:
                return True
        return self._start_afresh()

    def append(self, data: bytes) -> None:
        """Add bytes that came by another way; there must be room."""
        end = self.filled + len(data)
        self.view[self.filled : end] = data
        self.filled = end

    def take_out(self, into: memoryview) -> int:
        """Copy unparsed bytes out, as many as there are and fit; how many that was."""
        length = min(self.unparsed, len(into))
        into[:length] = self.view[self.parsed : self.parsed + length]
        self.parsed += length
        return length

    def let_go(self) -> None:
        """Hold no buffer; only when nothing is unparsed, or nobody wants it any more."""
        buffer = self.buffer
        if buffer is not None:
            self.buffer = None
            self.view = _NOTHING
            self.filled = self.parsed = 0
            buffer.release()

    def _start_afresh(self) -> bool:
        """Move what is unparsed to the front of a buffer that nobody else holds."""
        old, unparsed = self.buffer, self.unparsed
        if old is not None and old.references == 1:
            self.view[:unparsed] = self.view[self.parsed : self.filled]
        else:
            fresh = self._take(RECEIVE_BYTES)
            if fresh is None:
                return False
            fresh.view[:unparsed] = self.view[self.parsed : self.filled]
            self.buffer, self.view = fresh, fresh.view
            if old is not None:
                old.release()
        self.parsed, self.filled = 0, unparsed
        return True
