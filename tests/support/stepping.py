"""Driving a volume one completion at a time: the test says which request of which device is done next, and how."""

import asyncio
from dataclasses import dataclass, field

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.volume.failures import Failure
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.volume import Volume
from shared.migration.devices import Side
from shared.migration.states import State, routing_of
from tests.support.memory_device import MemoryDevice

SIZE = 64 * 1024
REGION = 16 * 1024


@dataclass(slots=True)
class Heard:
    """A listener that takes notes."""

    target_failures: list[Failure] = field(default_factory=list)
    source_failures: list[Failure] = field(default_factory=list)
    source_losses: list[Failure] = field(default_factory=list)
    differing: list[Request] = field(default_factory=list)

    def target_failed(self, failure: Failure) -> None:
        self.target_failures.append(failure)

    def source_failed(self, failure: Failure) -> None:
        self.source_failures.append(failure)

    def source_lost(self, failure: Failure) -> None:
        self.source_losses.append(failure)

    def sides_differ(self, request: Request) -> None:
        self.differing.append(request)


class Bench:
    """A volume over two devices, and what the application asked of it."""

    def __init__(
        self, state: State, *, alignment: int = 1, pool_bytes: int = 8 << 20, patience_s: float | None = None
    ) -> None:
        self.pool = BufferPool(pool_bytes)
        self.client_pool = BufferPool(8 << 20)
        self.source = MemoryDevice("source", bytes(SIZE), alignment)
        self.target = MemoryDevice("target", bytes(SIZE), alignment)
        self.heard = Heard()
        self.answered: list[Request] = []
        self.volume = Volume(
            size_bytes=SIZE,
            alignment_bytes=alignment,
            region_size_bytes=REGION,
            pool=self.pool,
            listener=self.heard,
            source=self.source,
            target=self.target,
            patience_s=patience_s,
        )
        self.volume.route(state, routing_of(state, Side.SOURCE))
        self.volume.open()

    def write(self, offset: int = 0, length: int = 4096, value: int = 1) -> Request:
        request = Request(Kind.WRITE, offset, length, self.answered.append)
        request.buffer = self.client_pool.take(length)
        request.buffer.view[:length] = bytes([value]) * length
        self.volume.submit(request)
        return request

    def read(self, offset: int = 0, length: int = 4096) -> Request:
        request = Request(Kind.READ, offset, length, self.answered.append)
        request.buffer = self.client_pool.take(length)
        self.volume.submit(request)
        return request

    def ask(self, kind: Kind) -> Request:
        request = Request(kind, 0, 0 if kind is Kind.FLUSH else 4096, self.answered.append)
        self.volume.submit(request)
        return request

    def move_authority(self) -> None:
        """What the decision point does once the witness holds the move."""
        self.volume.failover.drop(Side.SOURCE, withhold=False)
        self.volume.route(State.TARGET_SELECTED, routing_of(State.TARGET_SELECTED, Side.TARGET))
        self.volume.failover.end_move(moved=True)


async def finish(device: MemoryDevice, operation: str, error: int = 0) -> None:
    """Do the oldest request of this kind that the device has, or fail it; returns when the volume knows."""
    request = next(each for each in device.pending if each.operation == operation)
    device.pending.remove(request)
    if not error:
        request.act()
    asyncio.get_running_loop().call_soon(request.done, request.context, error)
    await turn()


async def turn() -> None:
    """Let the loop do what is due."""
    for _ in range(5):
        await asyncio.sleep(0)
