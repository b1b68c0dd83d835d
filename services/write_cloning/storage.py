"""Small files that survive a power cut: replaced whole, or not at all.

What the host must remember (witnesses, the run number) is kept through this interface, so that a simulation can put a disk
with a volatile cache behind it.
"""

import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import aiofiles
import aiofiles.os

_fsync = aiofiles.os.wrap(os.fsync)
_replace = aiofiles.os.wrap(os.replace)
_open = aiofiles.os.wrap(os.open)
_close = aiofiles.os.wrap(os.close)

FILE_SIZE_BYTES_MAX = 1 << 20


def _private(path: str, flags: int) -> int:
    """Open a file that is its owner's alone, also where one was left that is not."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


class Storage(Protocol):
    """Named blobs. Every change is durable on return."""

    async def put(self, name: str, content: bytes) -> None:
        """Create or replace; after a crash the old or the new content is there, never a mixture."""

    async def get(self, name: str) -> bytes | None:
        """The content, or None when there is no such file.

        Raises:
            OSError: it cannot be read; `EFBIG`: it is far larger than what is kept here. Half of it is never the answer.
        """

    async def remove(self, name: str) -> None:
        """Remove; no error when there is no such file."""

    async def names(self) -> Sequence[str]:
        """All names, sorted; what they name is durable, whoever put it there."""


class Directory:
    """Storage in a directory of a local filesystem: write aside, fsync, rename, fsync the directory.

    All of it is done by one thread, in order: what a caller that was cancelled has begun ends before the next change begins,
    so that an older content never comes after a newer one.
    """

    _ASIDE = ".new"

    def __init__(self, path: Path) -> None:
        """Use a directory that exists."""
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="storage")

    async def put(self, name: str, content: bytes) -> None:
        """See `Storage.put`."""
        aside = self._path / (name + self._ASIDE)
        async with aiofiles.open(aside, "wb", executor=self._thread, opener=_private) as file:
            await file.write(content)
            await file.flush()
            await _fsync(file.fileno(), executor=self._thread)
        await _replace(aside, self._path / name, executor=self._thread)
        await self._sync_directory()

    async def get(self, name: str) -> bytes | None:
        """See `Storage.get`."""
        try:
            async with aiofiles.open(self._path / name, "rb", executor=self._thread) as file:
                content: bytes = await file.read(FILE_SIZE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        if len(content) > FILE_SIZE_BYTES_MAX:
            raise OSError(errno.EFBIG, f"it has more than {FILE_SIZE_BYTES_MAX} bytes")
        return content

    async def remove(self, name: str) -> None:
        """See `Storage.remove`."""
        if await aiofiles.os.path.exists(self._path / name, executor=self._thread):
            await aiofiles.os.unlink(self._path / name, executor=self._thread)
            await self._sync_directory()

    async def names(self) -> Sequence[str]:
        """See `Storage.names`; files that a crash left aside do not count.

        A process that was killed between rename and sync leaves what is read but not durable: the journal would be told of it,
        and a power cut then put the older file back.
        """
        await self._sync_directory()
        return sorted(
            name
            for name in await aiofiles.os.listdir(self._path, executor=self._thread)
            if not name.endswith(self._ASIDE)
        )

    async def _sync_directory(self) -> None:
        descriptor = await _open(self._path, os.O_RDONLY | os.O_DIRECTORY, executor=self._thread)
        try:
            await _fsync(descriptor, executor=self._thread)
        finally:
            await _close(descriptor, executor=self._thread)
