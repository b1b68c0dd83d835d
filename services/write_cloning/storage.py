"""Small files that survive a power cut: replaced whole, or not at all.

What the host must remember (witnesses, the run number) is kept through this interface, so that a simulation can put a disk
with a volatile cache behind it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import aiofiles
import aiofiles.os

_fsync = aiofiles.os.wrap(os.fsync)
_open = aiofiles.os.wrap(os.open)
_close = aiofiles.os.wrap(os.close)

FILE_SIZE_BYTES_MAX = 1 << 20


class Storage(Protocol):
    """Named blobs. Every change is durable on return."""

    async def put(self, name: str, content: bytes) -> None:
        """Create or replace; after a crash the old or the new content is there, never a mixture."""

    async def get(self, name: str) -> bytes | None:
        """The content, or None when there is no such file."""

    async def remove(self, name: str) -> None:
        """Remove; no error when there is no such file."""

    async def names(self) -> Sequence[str]:
        """All names, sorted."""


class Directory:
    """Storage in a directory of a local filesystem: write aside, fsync, rename, fsync the directory."""

    _ASIDE = ".new"

    def __init__(self, path: Path) -> None:
        """Use a directory that exists."""
        self._path = path

    async def put(self, name: str, content: bytes) -> None:
        """See `Storage.put`."""
        aside = self._path / (name + self._ASIDE)
        async with aiofiles.open(aside, "wb") as file:
            await file.write(content)
            await file.flush()
            await _fsync(file.fileno())
        await aiofiles.os.replace(aside, self._path / name)
        await self._sync_directory()

    async def get(self, name: str) -> bytes | None:
        """See `Storage.get`."""
        try:
            async with aiofiles.open(self._path / name, "rb") as file:
                return await file.read(FILE_SIZE_BYTES_MAX)
        except FileNotFoundError:
            return None

    async def remove(self, name: str) -> None:
        """See `Storage.remove`."""
        if await aiofiles.os.path.exists(self._path / name):
            await aiofiles.os.unlink(self._path / name)
            await self._sync_directory()

    async def names(self) -> Sequence[str]:
        """See `Storage.names`; files that a crash left aside do not count."""
        return sorted(
            name for name in await aiofiles.os.listdir(self._path) if not name.endswith(self._ASIDE)
        )

    async def _sync_directory(self) -> None:
        descriptor = await _open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            await _fsync(descriptor)
        finally:
            await _close(descriptor)
