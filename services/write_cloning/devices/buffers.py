"""Page-aligned memory for I/O: pooled, counted, bounded.

A buffer is a mapping of its own, a power of two from 4 KiB to 64 MiB, and returns to its size class when
the last reference is released. What is mapped never exceeds the pool's budget; memory that lies idle in one
class is given back when another class needs it. Whoever finds the pool exhausted asks to be called when
there is room, and is served in order: from then on newcomers wait behind, so that small requests cannot
starve a large one.

This file must not know what the bytes are for. It belongs to one event loop: nothing here is safe across
threads.
"""

import ctypes
import mmap
from collections import deque
from collections.abc import Callable

from services.write_cloning.devices.errors import BufferMisuseError, DeviceInvariantError, PoolExhaustedError

SMALLEST_BYTES = 4 << 10
LARGEST_BYTES = 64 << 20
DEFAULT_BUDGET_BYTES = 256 << 20
ZEROES_BYTES = 1 << 20

_SMALLEST_SHIFT = 12
_CLASSES = 15  # 4 KiB << 14 = 64 MiB


class _Nowhere:
    """Where buffers end that no pool counts any more."""

    def append(self, buffer: "Buffer", /) -> None:
        """Forget it: its memory goes back to the system once no device refers to it, either."""


_NOWHERE = _Nowhere()


class Buffer:
    """`size_bytes` of memory at `address`, seen through `view`; created with one reference, the taker's."""

    __slots__ = ("_home", "_memory", "_pool", "address", "references", "size_bytes", "view")

    def __init__(self, size_bytes: int, pool: "BufferPool | None", home: "list[Buffer] | _Nowhere") -> None:
        """Map fresh, zeroed memory. `home` is the free list that the last release puts the buffer on."""
        # Private; Python's default would be a shared mapping, which is a file of its own with slower faults.
        self._memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.view = memoryview(self._memory)
        self.size_bytes = size_bytes
        self.references = 1
        self._pool = pool
        self._home = home

    def retain(self, times: int = 1) -> None:
        """Hold the buffer once more, or so many times; each is released once."""
        if self.references < 1:
            raise BufferMisuseError(f"a buffer of {self.size_bytes} bytes was retained while nobody held it")
        self.references += times

    def release(self, times: int = 1) -> None:
        """Let go; the last holder's release returns the buffer to its pool, which may hand it out at once."""
        references = self.references - times
        if references > 0:
            self.references = references
        elif references == 0:
            self.references = 0
            self._home.append(self)
            pool = self._pool
            if pool is not None and pool.is_contended:
                pool.serve_waiting()
        else:
            raise BufferMisuseError(f"a buffer of {self.size_bytes} bytes was released once too often")

    def leave_pool(self) -> None:
        """Count against the pool's budget no more, because nobody can tell when the last holder lets go.

        Its room is others' at once, and its memory never comes back to the pool. Nothing for what belongs to no pool.
        """
        pool = self._pool
        if pool is not None:
            self._pool, self._home = None, _NOWHERE
            pool.write_off(self.size_bytes)

    def leave_to_successor(self) -> "Buffer":
        """Leave the pool to a fresh buffer that counts in this one's place, held once: whoever takes it waits for no room."""
        pool, home = self._pool, self._home
        self._pool, self._home = None, _NOWHERE
        return Buffer(self.size_bytes, pool, home)

    def unmap(self) -> None:
        """Give the memory back to the system. Only for the pool, and only while nobody holds the buffer.

        Where something has a piece of its view all the same, as the traceback of an exception may have, the memory goes with
        that: it comes from nobody's want, and whoever gives a buffer back must not fail for it.
        """
        if self.references:
            raise BufferMisuseError(f"a buffer of {self.size_bytes} bytes was unmapped while it was held")
        try:
            self.view.release()
            self._memory.close()
        except BufferError:
            return


class BufferPool:
    """Buffers in size classes, together never more than a budget, apart from those that have left."""

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        """Map nothing yet; memory comes with use."""
        if budget_bytes < SMALLEST_BYTES:
            raise ValueError(
                f"a budget of {budget_bytes} bytes holds no buffer; {SMALLEST_BYTES} is the least"
            )
        self.budget_bytes = budget_bytes
        self.mapped_bytes = 0
        self.is_contended = False  # someone waits for room; newcomers line up behind
        self._free: list[list[Buffer]] = [[] for _ in range(_CLASSES)]
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    @property
    def in_use_bytes(self) -> int:
        """What is held by someone, in whole buffers."""
        return self.mapped_bytes - self._idle_bytes()

    def take(self, length: int) -> Buffer:
        """Give a buffer of at least `length` bytes, held once; its bytes are whatever was there.

        Raises:
            PoolExhaustedError: there is no room now.
        """
        buffer = self.try_take(length)
        if buffer is None:
            raise PoolExhaustedError(
                f"no room for a buffer of {length} bytes: {self.in_use_bytes} of {self.budget_bytes} bytes "
                f"are in use and {len(self._waiting)} requests wait for room"
            )
        return buffer

    def try_take(self, length: int) -> Buffer | None:
        """Like `take`, but None when there is no room now, or others wait for it already."""
        if length < 1:
            raise ValueError(f"a buffer holds at least one byte, not {length}")
        if self.is_contended:
            return None
        try:
            # The class: 0 for up to 4 KiB, 1 for up to 8 KiB…
            buffer = self._free[(length - 1 >> _SMALLEST_SHIFT).bit_length()].pop()
        except IndexError:
            return self._map(length)
        buffer.references = 1
        return buffer

    def when_room(self, callback: Callable[[], None], length: int = SMALLEST_BYTES) -> None:
        """Call back once, when a `try_take(length)` made from within the callback succeeds.

        Callbacks come in the order of asking, from inside some holder's `release` (never from inside this
        call), so they do little and do not raise. Ask only after `try_take` gave None.
        """
        self._waiting.append((self._class_size(length), callback))
        self.is_contended = True

    def forget(self, callback: Callable[[], None]) -> None:
        """Withdraw every request of `when_room` with this callback: whoever asked has gone."""
        self._waiting = deque(entry for entry in self._waiting if entry[1] != callback)
        self.serve_waiting()

    def serve_waiting(self) -> None:
        """Call those who wait, in order, as far as there is room. Called by `Buffer.release`."""
        while self._waiting and self._has_room(self._waiting[0][0]):
            _, callback = self._waiting.popleft()
            self.is_contended = False  # for this callback alone, whose turn it is
            try:
                callback()
            finally:
                self.is_contended = bool(self._waiting)
        self.is_contended = bool(self._waiting)

    def write_off(self, size_bytes: int) -> None:
        """Count so much less: a buffer has left. Only for the buffer."""
        self.mapped_bytes -= size_bytes
        if self.is_contended:
            self.serve_waiting()

    def close(self) -> None:
        """Unmap everything that is idle.

        Raises:
            DeviceInvariantError: buffers are still held; their memory stays.
        """
        held_bytes = self.in_use_bytes
        self._unmap_idle(self.mapped_bytes)
        if held_bytes:
            raise DeviceInvariantError(f"the buffer pool was closed while {held_bytes} bytes were in use")

    def _map(self, length: int) -> Buffer | None:
        size_bytes = self._class_size(length)
        excess_bytes = self.mapped_bytes + size_bytes - self.budget_bytes
        if excess_bytes > 0:
            if excess_bytes > self._idle_bytes():
                return None
            self._unmap_idle(excess_bytes)
        buffer = Buffer(size_bytes, self, self._free[_class_of(length)])
        self.mapped_bytes += size_bytes
        return buffer

    def _class_size(self, length: int) -> int:
        size_bytes = SMALLEST_BYTES << _class_of(length)
        largest_bytes = min(LARGEST_BYTES, self.budget_bytes)
        if not 1 <= length <= largest_bytes or size_bytes > largest_bytes:
            raise ValueError(f"no buffer holds {length} bytes; this pool's largest has {largest_bytes}")
        return size_bytes

    def _has_room(self, size_bytes: int) -> bool:
        return self.mapped_bytes - self._idle_bytes() + size_bytes <= self.budget_bytes

    def _idle_bytes(self) -> int:
        return sum(len(free) * (SMALLEST_BYTES << index) for index, free in enumerate(self._free))

    def _unmap_idle(self, wanted_bytes: int) -> None:
        """Unmap idle buffers, the largest first, until `wanted_bytes` are given back or none is left."""
        for free in reversed(self._free):
            while free and wanted_bytes > 0:
                buffer = free.pop()
                buffer.unmap()
                self.mapped_bytes -= buffer.size_bytes
                wanted_bytes -= buffer.size_bytes


def _class_of(length: int) -> int:
    return (length - 1 >> _SMALLEST_SHIFT).bit_length()


def _make_zeroes() -> Buffer:
    """Map zeroes that nobody can spoil; never written, they cost no memory of their own."""
    buffer = Buffer(ZEROES_BYTES, None, [])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(buffer.address), ctypes.c_size_t(ZEROES_BYTES), mmap.PROT_READ) != 0:
        raise OSError(ctypes.get_errno(), "the buffer of zeroes could not be made read-only")
    buffer.view = buffer.view.toreadonly()
    return buffer


ZEROES = _make_zeroes()
"""Shared by all; `ZEROES_BYTES` long, read-only. Its reference is never released."""
