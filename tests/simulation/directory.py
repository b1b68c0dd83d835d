"""The host's state directory, with the honesty of a filesystem: a name that was replaced is durable once the directory is synced.

Before that a power cut leaves the old file or the new one; a mere crash of the process leaves the new one from the moment
of the rename on. What stands aside and was not renamed is gone.
"""

import asyncio
import errno
import random
from collections.abc import Callable, Sequence

from tests.simulation.process import Process, sleep_for_ever

Point = Callable[[str, Process], None]


class Directory:
    """The files, for as long as the world stands."""

    def __init__(self, rng: random.Random, point: Point, fault: Callable[[str], None]) -> None:
        self.rng = rng
        self.point = point
        self.fault = fault
        self.files: dict[str, bytes] = {}
        self.durable: dict[str, bytes] = {}
        self.unsynced: dict[str, list[bytes | None]] = {}
        self.puts_to_fail = 0
        self.replaced: Callable[[str, bytes | None], None] = lambda _name, _content: None

    def change(self, name: str, content: bytes | None) -> None:
        self.unsynced.setdefault(name, []).append(content)
        _set(self.files, name, content)

    def sync(self) -> None:
        self.unsynced.clear()
        self.durable = dict(self.files)

    def cut(self) -> None:
        """The power goes."""
        for name in sorted(self.unsynced):
            kept = self.rng.choice([None, *range(len(self.unsynced[name]))])
            if kept is not None:
                _set(self.durable, name, self.unsynced[name][kept])
        self.unsynced.clear()
        self.files = dict(self.durable)


def _set(files: dict[str, bytes], name: str, content: bytes | None) -> None:
    if content is None:
        files.pop(name, None)
    else:
        files[name] = content


class OpenDirectory:
    """A process's way to it. Implements `Storage`: one change after the other."""

    def __init__(self, directory: Directory, process: Process) -> None:
        self._directory = directory
        self._process = process
        self._lock = asyncio.Lock()

    async def put(self, name: str, content: bytes) -> None:
        async with self._lock:
            await self._pass("put:begun")
            self._fail_if_told(0.8)
            await self._alive()
            self._directory.change(name, content)
            self._directory.replaced(name, content)
            await self._pass("put:renamed")
            self._fail_if_told(1.0)
            self._directory.sync()
            await self._pass("put:synced")

    async def get(self, name: str) -> bytes | None:
        await self._pass("")
        return self._directory.files.get(name)

    async def remove(self, name: str) -> None:
        async with self._lock:
            await self._pass("remove:begun")
            if name in self._directory.files:
                self._directory.change(name, None)
                self._directory.replaced(name, None)
                await self._pass("remove:unlinked")
                self._directory.sync()
                await self._pass("remove:synced")

    async def names(self) -> Sequence[str]:
        await self._pass("")
        self._directory.sync()
        return sorted(self._directory.files)

    def _fail_if_told(self, chance: float) -> None:
        directory = self._directory
        if directory.puts_to_fail and directory.rng.random() < chance:
            directory.puts_to_fail -= 1
            directory.fault("witness:unwritable")
            raise OSError(errno.ENOSPC, "No space left on device")

    async def _pass(self, point: str) -> None:
        await asyncio.sleep(self._directory.rng.random() * 0.01)
        if point:
            self._directory.point(point, self._process)
        await self._alive()

    async def _alive(self) -> None:
        if self._process.is_dead:
            await sleep_for_ever()
