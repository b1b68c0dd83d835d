"""The two files that every system is given in turn, and the state that their pages are in before each measurement.

All systems get the same two files, so that filesystem, layout and preallocation are the same for each. Both are written
in full once, so that no system meets unwritten extents that another has already converted.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workloads import MIB, Caching

_PIECE_BYTES = 4 * MIB


@dataclass(frozen=True, slots=True)
class Files:
    """A source without a zero block, a target of the same size with other bytes, and how the systems open them."""

    source: Path
    target: Path
    size_bytes: int
    caching: Caching

    def settle(self) -> None:
        """Put both files into the same state before anything is measured.

        No page is dirty, so that nobody pays for the writes of the one before. What is in the cache was read anew: pages stay
        together as they came, whoever uses them afterwards.
        """
        for path in (self.source, self.target):
            with _opened(path) as file:
                os.fdatasync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                if self.caching is Caching.BUFFERED:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # the kernel then reads page by page
                if self.caching is not Caching.DIRECT:
                    _read_through(file)

    def check_equal(self) -> None:
        """Who claims to clone must have cloned.

        Raises:
            RuntimeError: the files differ.
        """
        compared = subprocess.run(
            ["cmp", self.source, self.target], capture_output=True, text=True, check=False
        )
        if compared.returncode != 0:
            raise RuntimeError(f"source and target differ: {compared.stdout}{compared.stderr}")


def make_files(folder: Path, size_bytes: int, caching: Caching) -> Files:
    """Write both files in full."""
    files = Files(folder / "source.img", folder / "target.img", size_bytes, caching)
    for path in (files.source, files.target):
        piece = os.urandom(_PIECE_BYTES)
        with path.open("wb") as file:
            for _ in range(size_bytes // _PIECE_BYTES):
                file.write(piece)
            os.fsync(file.fileno())
    return files


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR)
    try:
        yield file
    finally:
        os.close(file)


def _read_through(file: int) -> None:
    piece = bytearray(_PIECE_BYTES)
    offset = 0
    while count := os.preadv(file, [piece], offset):
        offset += count
