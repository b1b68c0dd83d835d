"""System calls that Python's own modules do not offer, or not by memory address, as plain functions.

All of them release the interpreter's lock while they wait. They return what the kernel does: a count, or a
negated errno; nothing here raises for a failing call, because callers hand errno values on. This file must
not know who calls.
"""

import ctypes
import errno
import struct

PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10
KEEP_SIZE = 0x01
RWF_DSYNC = 0x02
FADV_WILLNEED = 3

_SYS_IO_URING_SETUP = 425  # the same numbers on every architecture
_SYS_IO_URING_ENTER = 426
_SYS_IO_URING_REGISTER = 427

_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_STATX_BTIME_AT = 80
_STATX_DIOALIGN = 0x2000
_STATX_DIOALIGN_AT = 152
_STATX_BYTES = 256
_STATFS_BYTES = 256  # more than it is
_STATFS = "ll5Q2I"  # its beginning, up to `f_fsid`

_libc = ctypes.CDLL(None, use_errno=True)

_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

# Not typed, because that makes a call twice as slow: small numbers and a null pointer are all that it is called with, and
# these arrive as they are.
_enter = ctypes.CDLL(None, use_errno=True).syscall
_enter.restype = ctypes.c_long


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _typed(name: str, *argument_types: type) -> "ctypes._NamedFuncPointer":
    function = getattr(_libc, name)
    function.restype = ctypes.c_ssize_t
    function.argtypes = list(argument_types)
    return function  # type: ignore[no-any-return]


_pread = _typed("pread64", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
_pwrite = _typed("pwrite64", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
_pwritev2 = _typed(
    "pwritev2", ctypes.c_int, ctypes.POINTER(_IoVec), ctypes.c_int, ctypes.c_int64, ctypes.c_int
)
_fallocate = _typed("fallocate64", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int
_fdatasync = _typed("fdatasync", ctypes.c_int)
_fdatasync.restype = ctypes.c_int
_posix_fadvise = _typed("posix_fadvise64", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int)
_posix_fadvise.restype = ctypes.c_int

_fstatfs = _typed("fstatfs64", ctypes.c_int, ctypes.c_char_p)
_fstatfs.restype = ctypes.c_int
_statx = _typed("statx", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
_statx.restype = ctypes.c_int


def _result(value: int) -> int:
    return value if value >= 0 else -(ctypes.get_errno() or errno.EIO)


def pread(fd: int, address: int, length: int, offset: int) -> int:
    """Read into memory at `address`."""
    return _result(_pread(fd, address, length, offset))


def pwrite(fd: int, address: int, length: int, offset: int, flags: int) -> int:
    """Write from memory at `address`; `flags` are the kernel's RWF_ ones."""
    if not flags:
        return _result(_pwrite(fd, address, length, offset))
    return _result(_pwritev2(fd, ctypes.byref(_IoVec(address, length)), 1, offset, flags))


def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """Allocate, punch or zero a range."""
    return _result(_fallocate(fd, mode, offset, length))


def fdatasync(fd: int) -> int:
    """Make written data durable."""
    return _result(_fdatasync(fd))


def fadvise(fd: int, offset: int, length: int, advice: int) -> int:
    """Advise; posix_fadvise returns its errno instead of setting it."""
    return -int(_posix_fadvise(fd, offset, length, advice))


def direct_io_alignment(fd: int) -> int | None:
    """What direct I/O on a file must be aligned to; 0 where there is none, None where the filesystem does not say."""
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if _statx(fd, b"", _AT_EMPTY_PATH, _STATX_DIOALIGN, answer) != 0:
        return None
    known: int = struct.unpack_from("=I", answer, 0)[0]
    alignments: tuple[int, int] = struct.unpack_from(
        "=2I", answer, _STATX_DIOALIGN_AT
    )  # of memory and of offsets
    return max(alignments) if known & _STATX_DIOALIGN else None


def birth_time_ns(fd: int) -> int:
    """When a file was made; 0 where the filesystem does not say. `fd` may be one that permits nothing (O_PATH)."""
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if _statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, answer) != 0:
        return 0
    known: int = struct.unpack_from("=I", answer, 0)[0]
    seconds: int
    nanoseconds: int
    seconds, nanoseconds = struct.unpack_from("=qI", answer, _STATX_BTIME_AT)
    return seconds * 1_000_000_000 + nanoseconds if known & _STATX_BTIME else 0


def filesystem(fd: int) -> tuple[int, int]:
    """The numbers that tell the kind of filesystem that a file is on, and which one it is (`f_fsid`); 0 if it cannot be told."""
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _fstatfs(fd, answer) != 0:
        return 0, 0
    magic: int
    magic, *_, low, high = struct.unpack_from(_STATFS, answer)
    return magic, high << 32 | low


def io_uring_setup(entries: int, parameters: "ctypes.Array[ctypes.c_char]") -> int:
    """Create a ring; the kernel fills in the rest of `parameters`."""
    return _result(_syscall(_SYS_IO_URING_SETUP, ctypes.c_uint(entries), parameters))


def io_uring_enter(ring_fd: int, to_submit: int, minimum_done: int, flags: int) -> int:
    """Submit entries, and run what the kernel has put off for us when `flags` ask for events."""
    submitted: int = _enter(_SYS_IO_URING_ENTER, ring_fd, to_submit, minimum_done, flags, None, 0)
    return submitted if submitted >= 0 else -ctypes.get_errno()


def io_uring_register(ring_fd: int, opcode: int, argument: object, count: int) -> int:
    """Change or ask something about a ring; `argument` is a ctypes array or reference."""
    return _result(
        _syscall(
            _SYS_IO_URING_REGISTER,
            ctypes.c_int(ring_fd),
            ctypes.c_uint(opcode),
            argument,
            ctypes.c_uint(count),
        )
    )
