"""A device in memory that does its requests when it is told to, in any order, as a disk with a deep queue may.

What a request does to the bytes happens at one moment between its start and its completion; which of those that are under
way comes next is the caller's choice. So a volume that has two overlapping writes under way at once is found out.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.interface import Done, Extent, WentOn, Write, ZeroMode, nobody_asks
from services.write_cloning.devices.one_by_one import write_one_by_one
from shared.migration.devices import DeviceIdentity, DeviceKind


@dataclass(slots=True)
class Pending:
    """A request that was started and not done."""

    operation: str
    act: Callable[[], None]
    done: Done
    context: object
    went_on: WentOn = nobody_asks


class MemoryDevice:
    """See `Device`. `fails` decides, when a request is done, whether it fails: given its operation, it returns an errno or 0."""

    can_zero_fast = True
    flush_error = 0
    engine_name = "memory"

    def __init__(self, name: str, content: bytes, alignment_bytes: int = 1) -> None:
        """Begin with these bytes."""
        self.content = bytearray(content)
        self.size_bytes = len(content)
        self.alignment_bytes = alignment_bytes
        self.identity = DeviceIdentity(
            name=name, kind=DeviceKind.FILE, token=f"memory:{name}", size_bytes=len(content)
        )
        self.pending: list[Pending] = []
        self.fails: Callable[[str], int] = lambda _operation: 0
        self.log: list[str] = []
        self.is_closed = False
        self.has_all_at_hand = False  # whether `read_at_once` serves

    @property
    def outstanding(self) -> int:
        """See `Device`."""
        return len(self.pending)

    def step(self, rng: random.Random) -> bool:
        """Do one of the requests that are under way; False when there is none."""
        if not self.pending:
            return False
        request = self.pending.pop(rng.randrange(len(self.pending)))
        error = self.fails(request.operation)
        if not error:
            request.act()
            self.log.append(request.operation)
        asyncio.get_running_loop().call_soon(request.done, request.context, error)
        return True

    def read(self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object) -> None:
        """See `Device`."""
        self._check(offset, length)

        def act() -> None:
            buffer.view[start : start + length] = self.content[offset : offset + length]

        self.pending.append(Pending("read", act, done, context))

    def read_at_once(self, offset: int, into: memoryview) -> bool:
        """See `Device`."""
        self._check(offset, len(into))
        if not self.has_all_at_hand or self.fails("read at once"):
            return False
        into[:] = self.content[offset : offset + len(into)]
        self.log.append("read at once")
        return True

    def write(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object
    ) -> None:
        """See `Device`."""
        self._write("write", offset, buffer.view[start : start + length], done, context)

    def write_all(self, writes: Sequence[Write], done: Done) -> None:
        """See `Device`."""
        write_one_by_one(self.write, writes, done)

    def write_durably(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object
    ) -> None:
        """See `Device`."""
        self._write("durable write", offset, buffer.view[start : start + length], done, context)

    def _write(self, operation: str, offset: int, payload: memoryview, done: Done, context: object) -> None:
        self._check(offset, len(payload))

        def act() -> None:
            self.content[offset : offset + len(payload)] = payload

        self.pending.append(Pending(operation, act, done, context))

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
        """See `Device`."""
        self._check(offset, length)

        def act() -> None:
            self.content[offset : offset + length] = bytes(length)

        self.pending.append(Pending(f"zero {mode.value}", act, done, context, went_on))

    def flush(self, done: Done, context: object) -> None:
        """See `Device`."""
        self.pending.append(Pending("flush", lambda: None, done, context))

    def prefetch(self, offset: int, length: int, done: Done, context: object) -> None:
        """See `Device`."""
        self.pending.append(Pending("prefetch", lambda: None, done, context))

    async def extents(self, offset: int, length: int, most: int | None = None) -> Sequence[Extent]:
        """Runs of zero blocks of 4 KiB are holes."""
        extents: list[Extent] = []
        for at in range(offset, offset + length, 4096):
            size = min(4096, offset + length - at)
            is_hole = not any(self.content[at : at + size])
            if extents and extents[-1].is_hole is is_hole:
                extents[-1] = Extent(extents[-1].offset, extents[-1].length + size, is_hole=is_hole)
            else:
                extents.append(Extent(at, size, is_hole=is_hole))
        return extents[:most]

    async def close(self) -> None:
        """See `Device`."""
        self.is_closed = True

    def _check(self, offset: int, length: int) -> None:
        if offset % self.alignment_bytes or length % self.alignment_bytes:
            raise AssertionError(f"unaligned: {offset} {length}")
        if offset < 0 or length < 1 or offset + length > self.size_bytes:
            raise AssertionError(f"out of bounds: {offset} {length}")
