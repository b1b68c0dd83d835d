"""io_uring's shared memory and its three system calls: entries in, completions out. Mechanics only.

Entries are not a ring here. Each *token* (0 to `TOKENS` - 1) owns one submission entry for good, with the
token in it as user data, and an entry is rewritten only when its token is free; the submission queue proper
is an array of tokens. So the queue can never be full, neither can the completion queue (it holds two
completions for each token, and each token has at most one), and what a request asked for can be read back
from its entry.

The sources of the layouts and numbers are linux/io_uring.h and the man pages of liburing. Reading
completions without memory barriers is right only where loads are not reordered with loads: on x86-64, which
is all that is accepted; elsewhere the other engine serves. (Submissions need none: the kernel reads them in
our own system call.)

This file must not know devices, callbacks or the event loop.
"""

import ctypes
import errno
import mmap
import os
import platform
import struct
from array import array
from contextlib import ExitStack

from services.write_cloning.devices import syscalls
from services.write_cloning.devices.engine import Operation
from services.write_cloning.devices.errors import EngineUnavailableError

TOKENS = 8192

_FSYNC_DATASYNC = 1
_ENTRY_ASYNC = 1 << 4

_SETUP_SUBMIT_ALL = 1 << 7
_SETUP_SINGLE_ISSUER = 1 << 12
_SETUP_DEFER_TASKRUN = 1 << 13

# Completion work that is deferred until we ask for it saves an interrupt and a wake-up for each request: cloned 4 KiB
# writes went from 43 to 76 thousand a second by it. It needs Linux 6.1, as does the kernel's not hashing of requests
# that are made asynchronous from the start, which `ring` relies on (5.18).
_SETUP = _SETUP_SUBMIT_ALL | _SETUP_SINGLE_ISSUER | _SETUP_DEFER_TASKRUN

_FEATURE_SINGLE_MMAP = 1 << 0
_FEATURE_NODROP = 1 << 1
_REGISTER_EVENTFD = 4
_REGISTER_PROBE = 8
_REGISTER_IOWQ_MAX_WORKERS = 19
_ENTER_GETEVENTS = 1
_SQ_CQ_OVERFLOW = 1 << 1
_OFFSET_OF_ENTRIES = 0x10000000
_MAP_POPULATE = 0x8000
_PARAMETERS_BYTES = 120
ENTRY_SHIFT = 6  # 64 bytes
_COMPLETION_BYTES = 16
_WRAP = 0xFFFFFFFF

# The first half of an entry: opcode, flags, priority and descriptor as one word; offset; address; length;
# flags. All of the second half but the user data stays zero.
ENTRY = struct.Struct("<QQQII")
_USER_DATA_AT = 32
_COMPLETION = struct.Struct("<Qii")  # user data, result, flags


def word_of(operation: Operation, fd: int, *, is_async: bool = False) -> int:
    """The constant beginning of an entry, to be computed once. `is_async`: do not try, give it to a worker at once."""
    return operation | (_ENTRY_ASYNC << 8 if is_async else 0) | fd << 32


class Rings:
    """One io_uring instance. Used only by the thread that made it."""

    def __init__(self) -> None:
        """Set up, map, and check what the kernel offers.

        Raises:
            EngineUnavailableError: the kernel, the container or the processor will not do.
        """
        if platform.machine() != "x86_64":
            raise EngineUnavailableError(f"io_uring is used on x86_64 only, and this is {platform.machine()}")
        with ExitStack() as undo:
            parameters = self._set_up()
            undo.callback(os.close, self.fd)
            # Polling the ring's own descriptor would not do: deferred completion work does not wake who polls it.
            self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            undo.callback(os.close, self.eventfd)
            self._check(parameters)
            self._map(parameters)
            undo.pop_all()

    def _set_up(self) -> "ctypes.Array[ctypes.c_char]":
        parameters = ctypes.create_string_buffer(_PARAMETERS_BYTES)
        struct.pack_into("<I", parameters, 8, _SETUP)
        self.fd = syscalls.io_uring_setup(TOKENS, parameters)
        if self.fd == -errno.EINVAL:
            raise EngineUnavailableError("this kernel's io_uring is too old: Linux 6.1 is needed")
        if self.fd < 0:
            raise EngineUnavailableError(f"io_uring cannot be used here: {os.strerror(-self.fd)}")
        return parameters

    def _check(self, parameters: "ctypes.Array[ctypes.c_char]") -> None:
        needed_features = _FEATURE_SINGLE_MMAP | _FEATURE_NODROP
        if struct.unpack_from("<I", parameters, 20)[0] & needed_features != needed_features:
            raise EngineUnavailableError("this kernel's io_uring is too old: it may drop completions")
        probe = ctypes.create_string_buffer(16 + 256 * 8)
        result = syscalls.io_uring_register(self.fd, _REGISTER_PROBE, probe, 256)
        supported = {probe.raw[at] for at in range(16, len(probe), 8) if probe.raw[at + 2] & 1}
        missing = sorted(set(Operation) - supported)
        if result < 0 or missing:
            raise EngineUnavailableError(f"this kernel's io_uring is too old: it lacks operations {missing}")
        # Requests that cannot be done without waiting each hold a kernel worker. The kernel's own limit,
        # four for each processor, would let one frozen device take them all; with one for each token none
        # can be taken.
        workers = (ctypes.c_uint * 2)(TOKENS, 0)
        if syscalls.io_uring_register(self.fd, _REGISTER_IOWQ_MAX_WORKERS, workers, 2) < 0:
            raise EngineUnavailableError("this kernel's io_uring is too old: its workers cannot be counted")
        eventfd = ctypes.byref(ctypes.c_int(self.eventfd))
        result = syscalls.io_uring_register(self.fd, _REGISTER_EVENTFD, eventfd, 1)
        if result < 0:
            raise EngineUnavailableError(f"io_uring cannot report completions here: {os.strerror(-result)}")

    def _map(self, parameters: "ctypes.Array[ctypes.c_char]") -> None:
        entries, completions = struct.unpack_from("<2I", parameters, 0)
        head_at, tail_at, mask_at, _, flags_at, _, array_at = struct.unpack_from("<7I", parameters, 40)
        done_head_at, done_tail_at, done_mask_at, _, _, done_at = struct.unpack_from("<6I", parameters, 80)
        size_bytes = max(array_at + entries * 4, done_at + completions * _COMPLETION_BYTES)
        shared = mmap.MAP_SHARED | _MAP_POPULATE
        self._rings = mmap.mmap(self.fd, size_bytes, shared, offset=0)
        self._bytes = memoryview(self._rings)
        self._words = self._bytes.cast("I")
        try:
            self.entries = mmap.mmap(self.fd, entries << ENTRY_SHIFT, shared, offset=_OFFSET_OF_ENTRIES)
        except BaseException:
            self._words.release()
            self._bytes.release()
            self._rings.close()
            raise
        self._head, self._tail, self._flags = head_at // 4, tail_at // 4, flags_at // 4
        self._done_head, self._done_tail = done_head_at // 4, done_tail_at // 4
        self._mask, self._done_mask = self._words[mask_at // 4], self._words[done_mask_at // 4]
        self._array = self._words[array_at // 4 : array_at // 4 + entries]
        self._completions = self._bytes[done_at : done_at + completions * _COMPLETION_BYTES]
        for token in range(TOKENS):
            struct.pack_into("<Q", self.entries, (token << ENTRY_SHIFT) + _USER_DATA_AT, token)

    def prepare(
        self, token: int, word: int, operation: Operation, offset: int, address: int, length: int, flags: int
    ) -> None:
        """Write a token's entry; `word` by `word_of`, the meaning of the other fields is that of `Lane.submit`."""
        match operation:
            case Operation.READ | Operation.WRITE | Operation.ADVISE:
                pass
            case Operation.SYNC:
                flags = _FSYNC_DATASYNC
            case Operation.ALLOCATE:
                address, length, flags = length, flags, 0
        ENTRY.pack_into(self.entries, token << ENTRY_SHIFT, word, offset, address, length, flags)

    def describe(self, token: int) -> tuple[Operation, int, int, int, int]:
        """Read a token's entry back: operation, offset, address, length and flags as `prepare` took them."""
        word, offset, address, length, flags = ENTRY.unpack_from(self.entries, token << ENTRY_SHIFT)
        operation = Operation(word & 0xFF)
        match operation:
            case Operation.READ | Operation.WRITE | Operation.ADVISE:
                return operation, offset, address, length, flags
            case Operation.SYNC:
                return operation, 0, 0, 0, 0
            case Operation.ALLOCATE:
                return operation, offset, 0, address, length

    def stage(self, tokens: list[int]) -> None:
        """Queue the entries of these tokens, in this order, for the next `enter`."""
        words, mask = self._words, self._mask
        tail = words[self._tail]
        start = tail & mask
        end = start + len(tokens)
        if end <= mask + 1:
            self._array[start:end] = memoryview(array("I", tokens))
        else:
            for position, token in enumerate(tokens, start):
                self._array[position & mask] = token
        words[self._tail] = tail + len(tokens) & _WRAP

    def enter(self) -> int:
        """Hand staged entries to the kernel and let it finish what it has put off; returns how many are left.

        Entries are left when the kernel is out of memory, or wants completions to be collected first.
        """
        while True:
            staged: int = self._words[self._tail] - self._words[self._head] & _WRAP
            result = syscalls.io_uring_enter(self.fd, staged, 0, _ENTER_GETEVENTS)
            if result >= 0:
                return staged - result
            if result in {-errno.EAGAIN, -errno.EBUSY}:
                return staged
            if result != -errno.EINTR:
                raise OSError(-result, f"io_uring_enter: {os.strerror(-result)}")

    def completions(self) -> list[tuple[int, int, int]]:
        """Take what is done: user data, result (a count or a negated errno), flags."""
        words = self._words
        if words[self._flags] & _SQ_CQ_OVERFLOW:
            self.enter()  # the kernel keeps what found no room, until it is asked
        head, tail = words[self._done_head], words[self._done_tail]
        if head == tail:
            return []
        size = self._done_mask + 1
        start = head & self._done_mask
        end = start + (tail - head & _WRAP)
        found = self._between(start, min(end, size))
        if end > size:
            found += self._between(0, end - size)
        words[self._done_head] = tail
        return found

    def _between(self, start: int, end: int) -> list[tuple[int, int, int]]:
        return list(
            _COMPLETION.iter_unpack(self._completions[start * _COMPLETION_BYTES : end * _COMPLETION_BYTES])
        )

    def close(self) -> None:
        """Unmap and close. Whatever is still under way is cancelled by the kernel where it can be."""
        for view in (self._completions, self._array, self._words, self._bytes):
            view.release()
        self._rings.close()
        self.entries.close()
        os.close(self.fd)
        os.close(self.eventfd)
