"""Replies to reads that a volume could serve at once, laid out to be sent as they lie: each header in front of its data. Hot.

Most reads of a buffered device find their bytes in the page cache. Such a read needs no request: it is answered within the
batch that brought it, from memory that the whole batch shares. What cannot be served at once goes the ordinary way.
"""

from collections.abc import Callable

from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.export.limits import TRAY_BYTES
from services.write_cloning.outbox import Outbox
from shared.nbd import replies

# Data begins at a multiple of this. The kernel copies to such addresses twice as fast as to odd ones; no header is longer.
_ALIGNMENT = 32
_NOTHING = memoryview(b"")
_pack_data_chunk_before = replies.pack_data_chunk_before
_pack_success_before = replies.pack_success_before


class Tray:
    """Serves one connection. Between batches it holds no memory."""

    __slots__ = (
        "_buffer",
        "_filled",
        "_has_structured_replies",
        "_outbox",
        "_pool",
        "_push",
        "_read",
        "_size",
        "_view",
    )

    def __init__(
        self,
        pool: BufferPool,
        outbox: Outbox,
        read_at_once: Callable[[int, memoryview], bool],
        *,
        has_structured_replies: bool,
    ) -> None:
        """`read_at_once` is the volume's."""
        self._pool = pool
        self._outbox = outbox
        self._push = outbox.push
        self._read = read_at_once
        self._has_structured_replies = has_structured_replies
        self._buffer: Buffer | None = None
        self._view = _NOTHING
        self._size = 0
        self._filled = 0

    def serve(self, cookie: int, offset: int, length: int) -> bool:
        """Answer a read if its bytes are at hand and there is memory; False: it was not answered."""
        start = self._filled + _ALIGNMENT
        end = start + length
        if end > self._size:
            if not self._take_buffer():
                return False
            start = _ALIGNMENT
            end = start + length
        view = self._view
        if not self._read(offset, view[start:end]):
            return False
        if self._has_structured_replies:
            header = _pack_data_chunk_before(view, start, cookie, offset, length)
        else:
            header = _pack_success_before(view, start, cookie)
        self._push(view[header:end])
        self._filled = end + _ALIGNMENT - 1 & -_ALIGNMENT
        return True

    def hand_over(self) -> None:
        """The batch is over: its memory is the outbox's until it is sent."""
        buffer = self._buffer
        if buffer is not None:
            self._buffer = None
            self._view = _NOTHING
            self._size = self._filled = 0
            self._outbox.lend(buffer)

    def _take_buffer(self) -> bool:
        self.hand_over()
        buffer = self._pool.try_take(TRAY_BYTES)
        if buffer is None:
            return False
        self._buffer = buffer
        self._view = buffer.view
        self._size = buffer.size_bytes
        return True
