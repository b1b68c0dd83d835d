"""The region maps' files, on a filesystem that may lose its cache: writes in place are durable only when they have returned.

A write that was under way at a power cut is there in part; a file that was being created is there, or not.
"""

import asyncio
import errno
import random
from collections.abc import Callable, Sequence

from services.write_cloning.map_files import MapFile
from tests.simulation.process import Process, sleep_for_ever

Point = Callable[[str, Process], None]


class Maps:
    """The files, for as long as the world stands."""

    def __init__(self, rng: random.Random, point: Point, fault: Callable[[str], None]) -> None:
        self.rng = rng
        self.point = point
        self.fault = fault
        self.files: dict[str, bytearray] = {}
        self.durable: dict[str, bytes] = {}
        self.unsynced: list[tuple[str, int, bytes]] = []
        self.unsynced_names: dict[str, bytes | None] = {}
        self.writes_to_fail = 0

    def write(self, name: str, offset: int, content: bytes) -> None:
        if name in self.files:
            self.files[name][offset : offset + len(content)] = content
            self.unsynced.append((name, offset, content))

    def sync(self, name: str) -> None:
        if name in self.files:
            self.unsynced = [each for each in self.unsynced if each[0] != name]
            self.unsynced_names.pop(name, None)
            self.durable[name] = bytes(self.files[name])

    def cut(self) -> None:
        """The power goes."""
        for name, content in self.unsynced_names.items():
            if self.rng.random() < 0.5:
                if content is None:
                    self.durable.pop(name, None)
                else:
                    self.durable[name] = content
        for name, offset, content in self.unsynced:
            if name in self.durable and self.rng.random() < 0.5:
                kept = bytearray(self.durable[name])
                kept[offset : offset + len(content)] = content
                self.durable[name] = bytes(kept)
        self.unsynced.clear()
        self.unsynced_names.clear()
        self.files = {name: bytearray(content) for name, content in self.durable.items()}


class OpenMaps:
    """A process's way to them. Implements `MapFiles`."""

    def __init__(self, maps: Maps, process: Process) -> None:
        self.maps = maps
        self.process = process

    async def create(self, name: str, content: bytes) -> MapFile:
        """See `MapFiles`."""
        await self.passes("map-create:begun")
        self.fail_if_told()
        self.maps.unsynced = [each for each in self.maps.unsynced if each[0] != name]
        self.maps.files[name] = bytearray(content)
        self.maps.unsynced_names[name] = content
        await self.passes("map-create:renamed")
        self.maps.sync(name)
        await self.passes("map-create:synced")
        return _OpenMap(self, name)

    async def read(self, name: str) -> bytes | None:
        """See `MapFiles`."""
        await self.passes("")
        content = self.maps.files.get(name)
        return None if content is None else bytes(content)

    async def remove_all(self, migration: str, *, but: str = "") -> None:
        """See `MapFiles`."""
        await self.passes("")
        for name in [each for each in self.maps.files if each.startswith(f"{migration}.") and each != but]:
            del self.maps.files[name]
            self.maps.unsynced = [each for each in self.maps.unsynced if each[0] != name]
            self.maps.unsynced_names[name] = None

    def fail_if_told(self, chance: float = 1.0) -> None:
        """As a full disk would."""
        if self.maps.writes_to_fail and self.maps.rng.random() < chance:
            self.maps.writes_to_fail -= 1
            self.maps.fault("map:unwritable")
            raise OSError(errno.ENOSPC, "No space left on device")

    async def passes(self, point: str) -> None:
        """Time passes, and perhaps this process does."""
        await asyncio.sleep(self.maps.rng.random() * 0.004)
        if point:
            self.maps.point(point, self.process)
        if self.process.is_dead:
            await sleep_for_ever()


class _OpenMap:
    """Implements `MapFile`."""

    def __init__(self, maps: OpenMaps, name: str) -> None:
        self._maps = maps
        self._name = name
        self._lock = asyncio.Lock()

    async def write(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        async with self._lock:
            await self._maps.passes("map-write:begun")
            self._maps.fail_if_told(0.5)
            for offset, content in pieces:
                self._maps.maps.write(self._name, offset, content)
            await self._maps.passes("map-write:written")
            self._maps.fail_if_told()
            self._maps.maps.sync(self._name)
            await self._maps.passes("map-write:synced")

    async def close(self) -> None:
        async with self._lock:
            await self._maps.passes("")
