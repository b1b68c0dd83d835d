"""What the application's blocks look like.

Every block names itself, its write and its run all over: one that is stale, torn, lost or misplaced shows.
"""

import struct

BLOCK_BYTES = 4096
PIECE_BYTES = 1 << 20  # what one digest covers, where whole volumes are compared

_HEAD = struct.Struct("<8sQQQ")  # magic, run, block, sequence
_MAGIC = b"cutover\0"


def block_bytes(run: int, block: int, sequence: int) -> bytes:
    """What a block holds after the write of this number; number 0 is the block as the demonstration first made it."""
    return _HEAD.pack(_MAGIC, run, block, sequence) * (BLOCK_BYTES // _HEAD.size)


def sequence_in(run: int, block: int, data: bytes) -> int | None:
    """The number of the write that a block holds; None when it is not one whole write to this block in this run."""
    magic, found_run, found_block, sequence = _HEAD.unpack_from(data)
    whole = (magic, found_run, found_block) == (_MAGIC, run, block) and data == block_bytes(
        run, block, sequence
    )
    return sequence if whole else None
