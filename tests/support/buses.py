"""One process's view of the bus, over a NATS server or in memory: the same tests run over both."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shared.bus.bootstrap import bootstrap
from shared.bus.chain import ChainJournal, Stream
from shared.bus.connection import connected
from shared.bus.durability import ServerDurability
from shared.bus.endpoints import NatsEndpoints
from shared.bus.interface import Discovery, Durability, Endpoints, Listening, Requests
from shared.bus.jetstream import JetStreamStream
from shared.bus.memory import AcceptedDurability, MemoryBroker, MemoryBus, MemoryStream
from shared.bus.server import nats_server
from shared.clock import SystemClock
from shared.config.model import NatsConfig


@dataclass(frozen=True, slots=True)
class Wire:
    """Everything that a service is handed."""

    requests: Requests
    endpoints: Endpoints
    discovery: Discovery
    listening: Listening
    stream: Stream
    durability: Durability

    @property
    def journal(self) -> ChainJournal:
        return ChainJournal(self.stream)


class Wiring(Protocol):
    """Where connections come from."""

    def connect(self, name: str) -> AbstractAsyncContextManager[Wire]: ...


class MemoryWiring:
    def __init__(self) -> None:
        self.broker = MemoryBroker()

    @asynccontextmanager
    async def connect(self, name: str) -> AsyncIterator[Wire]:
        bus = MemoryBus(self.broker, name)
        yield Wire(bus, bus, bus, bus, MemoryStream(bus), AcceptedDurability())


class NatsWiring:
    def __init__(self, url: str, monitor_url: str) -> None:
        self.url = url
        self.monitor_url = monitor_url

    @asynccontextmanager
    async def connect(self, name: str) -> AsyncIterator[Wire]:
        async with connected(self.url, name=name, clock=SystemClock()) as bus:
            durability = ServerDurability(bus, NatsConfig(url=self.url, monitor_url=self.monitor_url))
            yield Wire(bus, NatsEndpoints(bus), bus, bus, JetStreamStream(bus), durability)


@asynccontextmanager
async def nats_wiring(folder: Path) -> AsyncIterator[NatsWiring]:
    """A server with its streams."""
    async with nats_server(folder) as server:
        async with connected(server.url, name="bootstrap", clock=SystemClock()) as bus:
            await bootstrap(bus)
        yield NatsWiring(server.url, server.monitor_url)
