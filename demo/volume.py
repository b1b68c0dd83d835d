"""The source that the demonstration makes: ext4 with Python's standard library and one large reserved file.

The application of the demonstration writes inside the reserved file's extents, and nowhere else, so that the filesystem stays
what it was while the volume is in use.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.blocks import BLOCK_BYTES, block_bytes

VOLUME_BYTES = 512 << 20
RESERVED_BYTES = 64 << 20
RESERVED_NAME = "reserved.bin"
_LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "site-packages", "dist-packages", "test", "tests", "*.so", "*.a"
)
_EXTENT_LINE = re.compile(r"^\s*\d+/\s*\d+\s+\d+/\s*\d+\s+(\d+)\s*-\s*(\d+)\s+(\d+)\s*-\s*(\d+)\s+(\d+)(.*)$")


class DemoError(Exception):
    """The demonstration cannot go on; the message is a whole sentence."""


@dataclass(frozen=True, slots=True)
class SourceVolume:
    """A source that was made here."""

    path: Path
    run: int
    reserved: tuple[tuple[int, int], ...]  # extents of the reserved file: offset and length in bytes
    checksums: dict[str, str]  # of every other file, by its path in the filesystem

    def reserved_blocks(self) -> Iterator[int]:
        """The numbers of the 4 KiB blocks that the application may write."""
        for offset, length in self.reserved:
            yield from range(offset // BLOCK_BYTES, (offset + length) // BLOCK_BYTES)


def run_tool(*command: str | Path) -> str:
    """Run a system's tool; its output.

    Raises:
        DemoError: it is missing or failed.
    """
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError:
        raise DemoError(f"{command[0]} is missing; `make demo` installs it as root.") from None
    if done.returncode != 0:
        raise DemoError(
            f"{command[0]} ended with status {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


def make_source(path: Path, scratch: Path, run: int) -> SourceVolume:
    """Make the filesystem, fill the reserved file with first versions of its blocks, and remember every checksum."""
    tree = scratch / "tree"
    shutil.copytree(sysconfig.get_path("stdlib"), tree / "python", ignore=_LEFT_OUT, symlinks=True)
    # Bytes that are not zero, or mke2fs would leave a hole where the file is to be.
    (tree / RESERVED_NAME).write_bytes(b"\xff" * RESERVED_BYTES)
    with path.open("wb") as image:
        image.truncate(VOLUME_BYTES)
    run_tool("mkfs.ext4", "-q", "-F", "-b", str(BLOCK_BYTES), "-L", "cutover-demo", "-d", tree, path)
    reserved = extents_of(path, f"/{RESERVED_NAME}")
    if sum(length for _, length in reserved) != RESERVED_BYTES:
        raise DemoError(
            f"The extents of {RESERVED_NAME} do not add up to {RESERVED_BYTES} bytes: {reserved}."
        )
    volume = SourceVolume(path, run, reserved, checksums_of(tree))
    with path.open("r+b") as image:
        for block in volume.reserved_blocks():
            image.seek(block * BLOCK_BYTES)
            image.write(block_bytes(run, block, 0))
        image.flush()
        os.fsync(image.fileno())
    shutil.rmtree(tree)
    return volume


def extents_of(image: Path, name: str) -> tuple[tuple[int, int], ...]:
    """Where a file lies in an ext4 image: offset and length in bytes of each extent."""
    extents = []
    for line in run_tool("debugfs", "-R", f"dump_extents -l {name}", image).splitlines():
        match = _EXTENT_LINE.match(line)
        if match is None:
            continue
        if "Uninit" in match[6]:
            raise DemoError(
                f"An extent of {name} is not written yet, so writing into it would not change the file."
            )
        first, last = int(match[3]), int(match[4])
        extents.append((first * BLOCK_BYTES, (last - first + 1) * BLOCK_BYTES))
    return tuple(extents)


def checksums_of(tree: Path) -> dict[str, str]:
    """The SHA-256 of every file under a folder but the reserved one, and where every link points."""
    checksums = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            checksums[name] = f"link to {path.readlink()}"
        elif path.is_file() and name != RESERVED_NAME:
            checksums[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return checksums
