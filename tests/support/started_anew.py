"""A standing host that is started anew, with startup beside it: what its state directory holds is what it begins with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from services.startup.service import SERVICE_NAME as STARTUP
from services.startup.service import Startup
from services.write_cloning.endpoints import endpoints_of
from services.write_cloning.host import Host
from shared.bus.chain import ChainJournal
from shared.bus.interface import ServiceDescription
from shared.bus.memory import MemoryBus, MemoryStream
from shared.clock import SystemClock
from shared.messages.host import HOST_SERVICE_NAME
from tests.support.standing_host import HOST, StandingHost


@asynccontextmanager
async def started_anew(house: StandingHost, run: int) -> AsyncIterator[None]:
    """Another run of the host, which startup has admitted. The process of the run before is dead."""
    life = f"life-{run}"
    house.bus.cut()
    house.bus = MemoryBus(house.broker, f"host-{run}")
    house.exports.volumes.clear()
    journal = ChainJournal(MemoryStream(house.bus))
    house.around = replace(house.around, run=run, life=life, requests=house.bus, journal=journal)
    house.host = Host(house.around)
    metadata = {"host": HOST, "run": str(run), "life": life}
    host = ServiceDescription(name=HOST_SERVICE_NAME, description="host", metadata=metadata)
    async with startup_beside(house):
        await house.host.admit()
        async with house.bus.serve(host, endpoints_of(house.host, HOST)):
            yield


@asynccontextmanager
async def startup_beside(house: StandingHost) -> AsyncIterator[None]:
    """The service alone."""
    bus = MemoryBus(house.broker, "startup")
    startup = Startup(
        journal=ChainJournal(MemoryStream(bus)), requests=bus, discovery=bus, clock=SystemClock()
    )
    service = ServiceDescription(name=STARTUP, description="startup")
    async with bus.serve(service, startup.endpoints()):
        yield
