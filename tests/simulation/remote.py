"""A remote device: the disk of a server that keeps no lock, and a connection to it (implements `Device`).

While a connection stands it is like any other handle. When it breaks, or when the process that has it dies, what changes the
device and was not done is left behind: each such request lands at any later time, in any order, in part, or only when
somebody at the server sees to it that the old connection is gone; never after that. A connection that is broken answers all
with an error, is never made again, and counts what it has lost, as `devices.remote` does.
"""

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.interface import Done, Unfenced
from shared.migration.devices import DeviceIdentity, DeviceKind
from tests.simulation.disk import SECTOR, Asked, Disk, OpenDisk
from tests.simulation.process import NOBODY, Process

BROKEN = errno.ECONNRESET
STAYS_CHANCE = 0.4  # that a request lands only when the old connection is ended, if at all
LATE_S = (0.1, 2.0, 20.0)
SLOW_CHANCE = 0.25  # a network between, so that more is under way when something happens


@dataclass(slots=True)
class RemoteDisk(Disk):
    """What the server keeps. `left` (of `Disk`) are the requests of connections that are no more."""

    is_remote: bool = True
    landing: Callable[["RemoteDisk"], None] = lambda _disk: None
    is_opened: bool = False  # in the life of this host
    is_in_doubt: bool = False  # an earlier life has not closed its connection, and nobody has vouched since
    has_lost: bool = False  # a connection of this life has lost requests, and nobody has vouched since
    has_landed_late: bool = False  # since the last word

    @property
    def identity(self) -> DeviceIdentity:
        return DeviceIdentity(
            name=self.name,
            kind=DeviceKind.REMOTE,
            token=f"nbd://{self.name}",
            size_bytes=self.sectors * SECTOR,
        )

    def leave(self, asked: Asked) -> None:
        """A request whose connection is no more: it lands at a time of its own, or waits for the end of the connection."""
        self.left[asked] = None
        if self.rng.random() >= STAYS_CHANCE:
            delay_s = self.rng.random() * self.rng.choice(LATE_S)
            asyncio.get_running_loop().call_later(delay_s, self._land_late, asked, context=NOBODY)

    def _land_late(self, asked: Asked) -> None:
        if asked in self.left:
            del self.left[asked]
            self.has_landed_late = True
            self.landing(self)
            asked.handle.land_partly(asked)

    def end_old_connections(self) -> int:
        """What is broken, or whose process is gone, is gone at the server too; returns how many requests it had of those."""
        left, self.left = self.left, {}
        for asked in left:
            asked.handle.land_partly(asked)
        return len(left)

    def break_connections(self) -> None:
        """All there are, for whatever reason."""
        for handle in list(self.handles):
            handle.sever(BROKEN)

    def cut(self) -> None:
        """The server loses its power: its connections and what it had of them are gone, and its cache."""
        self.break_connections()
        self.end_old_connections()
        Disk.cut(self)


class Connection(OpenDisk, Unfenced):
    """See the module's docstring."""

    engine_name = "simulated nbd"

    def __init__(self, disk: RemoteDisk, process: Process, let_go: Callable[[], None]) -> None:
        super().__init__(disk, process)
        self.error = 0
        self.lost = 0
        self._server = disk
        self._let_go = let_go
        self._acted: set[Asked] = set()  # done at the server, and not answered yet

    @property
    def outstanding(self) -> int:
        return len(self._under_way) + self.lost

    def read_at_once(self, offset: int, into: memoryview) -> bool:
        del offset, into
        return False

    async def extents(self, offset: int, length: int, most: int | None = None) -> Any:
        found = await super().extents(offset, length, most)
        if self.error:
            raise OSError(self.error, "the connection is broken")
        return found

    def vouch_gone(self) -> None:
        self.sever(errno.ECONNABORTED)
        self.lost = 0
        self._server.has_lost = False
        self._let_go()

    async def close(self) -> None:
        await super().close()
        if not self.lost:
            self._let_go()

    # ------------------------------------------------------------------ what comes of it

    def _ask(
        self,
        operation: str,
        offset: int,
        length: int,
        done: Done,
        context: object,
        *,
        values: list[bytes] | None = None,
        durable: bool = False,
        buffer: Buffer | None = None,
        start: int = 0,
    ) -> None:
        if not self.error:
            super()._ask(
                operation, offset, length, done, context, values=values, durable=durable, buffer=buffer, start=start
            )  # fmt: skip
        elif not self.process.is_dead:
            self._note_failed_flush(self.disk.attempt, durable=durable or operation == "flush")
            self._loop.call_soon(done, context, self.error, context=self.process.context)

    def _note_failed_flush(self, attempt: int, *, durable: bool) -> None:
        if durable:
            self.flush_error = self.flush_error or self.error
            self.disk.flush_failed_in = max(self.disk.flush_failed_in, attempt)

    def _latency(self, slow_chance: float = SLOW_CHANCE) -> float:
        return super()._latency(max(slow_chance, SLOW_CHANCE))

    def _due(self, asked: Asked) -> None:
        if asked in self._under_way:
            super()._due(asked)

    def _act(self, asked: Asked) -> int:
        self._acted.add(asked)
        return super()._act(asked)

    def _answer(self, asked: Asked, error: int) -> None:
        self._acted.discard(asked)
        if asked in self._under_way:
            super()._answer(asked, error)

    def sever(self, error: int) -> None:
        """Break it, once and for all. What is under way is answered with that, and may still land."""
        if self.error or self.is_closed:
            return
        self.error = error
        self.is_broken = True
        self.disk.failures += 1
        under_way = self._leave_all()
        self.lost = sum(asked.values is not None for asked in under_way)
        self._server.has_lost |= self.lost > 0
        for asked in under_way:
            self._note_failed_flush(asked.attempt, durable=asked.durable or asked.operation == "flush")
            self._loop.call_soon(asked.done, asked.context, error, context=self.process.context)
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def die(self) -> None:
        """The process is gone, and the server does not know."""
        self._leave_all()
        self._close()

    def _leave_all(self) -> list[Asked]:
        under_way = list(self._under_way)
        self._under_way.clear()
        self.disk.stuck = [each for each in self.disk.stuck if each.handle is not self]
        for asked in under_way:
            if asked.values is not None and asked not in self._acted:
                self._server.leave(asked)
        return under_way
