"""Whether io_uring can be used here: one ring is set up as the host would, and closed again. The host itself looks closer."""

import ctypes
import errno
import os
import platform
import struct
from pathlib import Path

_SYS_IO_URING_SETUP = 425
_PARAMETERS_BYTES = 120
_FLAGS_AT = 8
# Submit all, single issuer, deferred task run: what the host asks for, and Linux 6.1 has.
_FLAGS = 1 << 7 | 1 << 12 | 1 << 13
_SWITCH = Path("/proc/sys/kernel/io_uring_disabled")


def why_not_io_uring() -> str:
    """The reason, as a clause; empty when it can be used."""
    if platform.machine() != "x86_64":
        return f"it is used on x86_64 only, and this is {platform.machine()}"
    parameters = ctypes.create_string_buffer(_PARAMETERS_BYTES)
    struct.pack_into("<I", parameters, _FLAGS_AT, _FLAGS)
    call = ctypes.CDLL(None, use_errno=True).syscall
    descriptor = int(call(ctypes.c_long(_SYS_IO_URING_SETUP), ctypes.c_uint(1), parameters))
    if descriptor >= 0:
        os.close(descriptor)
        return ""
    return _reason(ctypes.get_errno())


def _reason(error: int) -> str:
    match error:
        case errno.EINVAL:
            return "this kernel's io_uring is too old: Linux 6.1 is needed"
        case errno.ENOSYS:
            return "this kernel has no io_uring"
        case errno.EPERM if _is_switched_off():
            return f"it is switched off ({_SWITCH})"
        case errno.EPERM:
            return "this process is not allowed to (a container's seccomp profile does that)"
        case _:
            return os.strerror(error)


def _is_switched_off() -> bool:
    try:
        return _SWITCH.read_text(encoding="ascii").strip() != "0"
    except OSError:
        return False
