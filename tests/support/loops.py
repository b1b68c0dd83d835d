"""Loop devices of one's own, at numbers that nobody else finds while nothing is attached to them."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAJOR = 7
_FIRST = 200  # `losetup --find` hands out the lowest that are free


def make_loop_node() -> Path:
    """A device node that nobody else has. Whoever asked for it unlinks it."""
    for number in range(_FIRST, 1000):
        node = Path(f"/dev/loop{number}")
        try:
            os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(_MAJOR, number))
        except FileExistsError:
            continue
        return node
    raise AssertionError("no loop device is left")


@contextmanager
def loop_node() -> Iterator[Path]:
    """The same, until the end of the block."""
    node = make_loop_node()
    try:
        yield node
    finally:
        node.unlink()
