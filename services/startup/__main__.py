"""`python -m services.startup [--config FILE]`."""

import asyncio
import sys

from services.startup.service import SERVICE_NAME, Startup
from shared.bus.bootstrap import require_journal
from shared.bus.chain import ChainJournal
from shared.bus.connection import connected
from shared.bus.endpoints import NatsEndpoints
from shared.bus.interface import ServiceDescription
from shared.bus.jetstream import JetStreamStream
from shared.bus.noting import NotingJournal
from shared.clock import SystemClock
from shared.config.model import Config
from shared.logs.about import PROCESS
from shared.process import EXIT_DONE, run_service
from shared.supervision.supervisor import supervisor

_DESCRIPTION = "Replays the journal and admits hosts before they open a volume."


async def serve(config: Config, stop: asyncio.Event) -> int:
    """Serve until `stop`."""
    clock = SystemClock()
    async with connected(config.nats, name="startup", clock=clock, stop=stop) as bus:
        await require_journal(bus)  # by one that loses records nobody is admitted
        journal = NotingJournal(ChainJournal(JetStreamStream(bus)))
        PROCESS.whereabouts = journal.whereabouts
        service = Startup(journal=journal, requests=bus, discovery=bus, clock=clock)
        description = ServiceDescription(name=SERVICE_NAME, description=_DESCRIPTION)
        async with NatsEndpoints(bus).serve(description, service.endpoints()):
            supervisor.ready("It admits hosts.", unless=bus.trouble)
            await stop.wait()
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_service("services.startup", _DESCRIPTION, serve))
