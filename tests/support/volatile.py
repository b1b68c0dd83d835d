"""Devices and map files with volatile caches, that call a watcher at every instant at which a power cut would matter.

After a cut, any subset of what was not synced may be there. Whoever watches is asked at each such instant; so nothing has
to be cut for the worst case to be looked at.
"""

import asyncio
import errno
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.write_cloning.devices.interface import Done, WentOn, ZeroMode, nobody_asks
from services.write_cloning.map_files import MapFile
from services.write_cloning.region_map import PAGE_BYTES
from tests.support.memory_device import MemoryDevice, Pending


@dataclass(slots=True, eq=False)
class Change:
    """Bytes on their way to the platter."""

    offset: int
    content: bytes


class VolatileDevice(MemoryDevice):
    """What was written is durable once a flush that began later is done."""

    def __init__(self, name: str, content: bytes, alignment: int, watch: Callable[[], None]) -> None:
        super().__init__(name, content, alignment)
        self.durable = bytearray(content)
        self.in_flight: list[Change] = []
        self.cached: list[Change] = []
        self._watch = watch

    def unsettled(self, low: int, high: int) -> bool:
        """Whether a cut now could leave more than one content in this range."""
        pending = (*self.in_flight, *self.cached)
        return any(each.offset < high and low < each.offset + len(each.content) for each in pending)

    def after_cut(self, rng: random.Random) -> bytes:
        content = bytearray(self.durable)
        for change in (*self.cached, *self.in_flight):
            if rng.random() < 0.5:
                content[change.offset : change.offset + len(change.content)] = change.content
        return bytes(content)

    def _write(self, operation: str, offset: int, payload: memoryview, done: Done, context: object) -> None:
        self._change(operation, offset, bytes(payload), done, context)

    def zero(
        self,
        offset: int,
        length: int,
        mode: ZeroMode,
        durable: bool,
        done: Done,
        context: object,
        went_on: WentOn = nobody_asks,
    ) -> None:
        self._change(f"zero {mode.value}", offset, bytes(length), done, context)

    def _change(self, operation: str, offset: int, content: bytes, done: Done, context: object) -> None:
        self._check(offset, len(content))
        change = Change(offset, content)
        self.in_flight.append(change)

        def act() -> None:
            self.content[offset : offset + len(content)] = content
            self.in_flight.remove(change)
            self.cached.append(change)
            self._watch()

        self.pending.append(Pending(operation, act, done, context))
        self._watch()

    def flush(self, done: Done, context: object) -> None:
        before = list(self.cached)

        def act() -> None:
            for change in before:
                if change in self.cached:
                    self.cached.remove(change)
                    self.durable[change.offset : change.offset + len(change.content)] = change.content
            self._watch()

        self.pending.append(Pending("flush", act, done, context))


@dataclass(slots=True)
class StoredMap:
    """One file: what is durable, and the pieces that may or may not be, in the order of their writing."""

    durable: bytes
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)

    def versions(self) -> list[bytes]:
        """The oldest, the newest, and those with one piece alone; bits of a piece are in one of these."""
        newest = self.durable
        for offset, piece in self.unsynced:
            newest = _laid(newest, offset, piece)
        alone = [_laid(self.durable, offset, piece) for offset, piece in self.unsynced]
        return [self.durable, *alone, newest]

    def after_cut(self, rng: random.Random) -> bytes:
        content = self.durable
        for offset, piece in self.unsynced:
            if rng.random() < 0.5:
                is_torn = rng.random() < 0.2
                kept = piece[: PAGE_BYTES // 2] if is_torn else piece
                content = _laid(content, offset, kept)
        return content


def _laid(content: bytes, offset: int, piece: bytes) -> bytes:
    return content[:offset] + piece + content[offset + len(piece) :]


class VolatileMaps:
    """Implements `MapFiles`. What it was asked waits for `step`."""

    def __init__(self, watch: Callable[[], None]) -> None:
        self.files: dict[str, StoredMap] = {}
        self.watch = watch
        self.waiting: list[asyncio.Future[None]] = []
        self.fails = 0  # so many writes and creations

    def step(self) -> None:
        """Let the oldest go on."""
        while self.waiting:
            waiter = self.waiting.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                return

    async def turn(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        await waiter
        if self.fails:
            self.fails -= 1
            raise OSError(errno.EIO, "Input/output error")

    async def create(self, name: str, content: bytes) -> MapFile:
        await self.turn()
        self.files[name] = StoredMap(content)
        self.watch()
        return _VolatileMap(self, self.files[name])

    async def read(self, name: str) -> bytes | None:
        stored = self.files.get(name)
        return stored.durable if stored is not None else None

    async def remove_all(self, migration: str, *, but: str = "") -> None:
        for name in [each for each in self.files if each.startswith(migration + ".") and each != but]:
            del self.files[name]

    def cut(self, rng: random.Random) -> None:
        for stored in self.files.values():
            stored.durable = stored.after_cut(rng)
            stored.unsynced = []


class PromptMaps(VolatileMaps):
    """The same, for whom everything is done at once, or fails for as long as `fails` says."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    async def turn(self) -> None:
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise OSError(errno.ENOSPC, "No space left on device")


class _VolatileMap:
    def __init__(self, disk: VolatileMaps, stored: StoredMap) -> None:
        self._disk = disk
        self._stored = stored
        self.is_closed = False

    async def write(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        assert not self.is_closed
        for piece in pieces:
            self._stored.unsynced.append(piece)
            self._disk.watch()
        await self._disk.turn()
        for offset, content in self._stored.unsynced:
            self._stored.durable = _laid(self._stored.durable, offset, content)
        self._stored.unsynced = []
        self._disk.watch()

    async def close(self) -> None:
        self.is_closed = True
