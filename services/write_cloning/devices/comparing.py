"""Finds where two runs of bytes in one buffer differ. Knows nothing of what they are."""

import ctypes

from services.write_cloning.devices.buffers import Buffer

BLOCK_BYTES = 4096
"""How precisely a difference is told."""

# Not `==` of memoryviews, which looks at one byte after the other: 1 MiB takes it some 80 times as long.
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int


def first_difference(buffer: Buffer, one: int, other: int, length: int) -> int | None:
    """Where the first differing block begins, counted from the beginning of either run; None where they are equal.

    The runs begin at the buffer's bytes `one` and `other`; blocks are counted from there, and the last may be shorter.
    """
    if _are_equal(buffer, one, other, length):
        return None
    return next(
        at
        for at in range(0, length, BLOCK_BYTES)
        if not _are_equal(buffer, one + at, other + at, min(BLOCK_BYTES, length - at))
    )


def _are_equal(buffer: Buffer, one: int, other: int, length: int) -> bool:
    if max(one, other) + length > buffer.size_bytes:
        raise ValueError(f"{length} bytes at {one} and {other} are not in {buffer.size_bytes} bytes")
    return not _memcmp(buffer.address + one, buffer.address + other, length)
