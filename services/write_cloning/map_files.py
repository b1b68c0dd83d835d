"""Where region maps are kept: a file each, written in place, and durable when a write returns.

A map says what differs now, so one that a backup has kept is worse than none. Nothing in its bytes would tell: only the
witness that names it is held against the journal. So a file ends with what tells it from every copy, and a copy is not read.

What it must not know: what the bytes mean. A simulation puts a disk with a volatile cache behind the same interface.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from services.write_cloning.devices.inodes import generation

SUFFIX = ".map"
FILE_BYTES_MAX = 256 << 20
_ASIDE = ".new"
_OWN_BYTES = 64
_Result = TypeVar("_Result")


class MapFile(Protocol):
    """One map that is open for writing. After an error nothing is known of what is on disk."""

    async def write(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Write bytes at offsets, all of them durable on return.

        Raises:
            OSError: they may not be.
        """

    async def close(self) -> None:
        """Let go of the file, after what was begun."""


class MapFiles(Protocol):
    """The maps of a host, by name: the migration's, a dot, and whatever tells one of its maps from the other."""

    async def create(self, name: str, content: bytes) -> MapFile:
        """Make a file, whole and durable on return; one of that name is replaced.

        Raises:
            OSError: it may not be there, or another one still is.
        """

    async def read(self, name: str) -> bytes | None:
        """The content, or None where there is no such file.

        Raises:
            OSError: it cannot be read; `ESTALE`: it is not the file that was written, but a copy of it.
        """

    async def remove_all(self, migration: str, *, but: str = "") -> None:
        """Remove a migration's maps, but one. What cannot be removed stays: nobody trusts it."""


class MapDirectory:
    """Implements `MapFiles` in a directory of a local filesystem that exists."""

    def __init__(self, path: Path) -> None:
        """Look at nothing yet."""
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="maps")

    async def create(self, name: str, content: bytes) -> MapFile:
        """See `MapFiles`."""
        return _OpenFile(await self._do(lambda: _create(self._path, name + SUFFIX, content)))

    async def read(self, name: str) -> bytes | None:
        """See `MapFiles`."""
        return await self._do(lambda: _read(self._path / (name + SUFFIX)))

    async def remove_all(self, migration: str, *, but: str = "") -> None:
        """See `MapFiles`."""
        await self._do(lambda: _remove_all(self._path, migration + ".", but + SUFFIX))

    async def _do(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class _OpenFile:
    """Implements `MapFile`. One thread of its own does everything in order, so that nothing is written after `close`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="map")

    async def write(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, pieces)

    async def close(self) -> None:
        closing = asyncio.get_running_loop().run_in_executor(self._thread, os.close, self._descriptor)
        self._thread.shutdown(wait=False)
        await closing

    def _write(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        for offset, content in pieces:
            _write_all(self._descriptor, content, offset)
        os.fdatasync(self._descriptor)


def _create(directory: Path, name: str, content: bytes) -> int:
    aside = directory / (name + _ASIDE)
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(descriptor, content + _its_own(descriptor), 0)
        os.fsync(descriptor)
        aside.replace(directory / name)
        _sync_directory(directory)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
            own = _its_own(file.fileno())
    except FileNotFoundError:
        return None
    if len(content) > FILE_BYTES_MAX:
        raise OSError(errno.EFBIG, "far too large for a region map")
    if not content.endswith(own):
        raise OSError(errno.ESTALE, "it is a copy of what was written, as from a backup")
    return content.removesuffix(own)


def _its_own(descriptor: int) -> bytes:
    """What no copy of a file has. A file that is removed leaves its inode's number to another, but not its generation."""
    told = generation(descriptor).hex()
    return f"inode {os.fstat(descriptor).st_ino} generation {told}\n".encode().rjust(_OWN_BYTES)


def _remove_all(directory: Path, prefix: str, but: str) -> None:
    with contextlib.suppress(OSError):
        for path in list(directory.iterdir()):
            if path.name.startswith(prefix) and path.name != but:
                path.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
