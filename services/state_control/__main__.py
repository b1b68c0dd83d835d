"""`python -m services.state_control [--config FILE]`."""

import asyncio
import sys
from uuid import uuid4

from services.state_control.service import SERVICE_NAME, StateControl
from shared.bus.chain import ChainJournal
from shared.bus.connection import connected
from shared.bus.durability import ServerDurability
from shared.bus.endpoints import NatsEndpoints
from shared.bus.interface import ServiceDescription
from shared.bus.jetstream import JetStreamStream
from shared.bus.noting import NotingJournal
from shared.bus.storing import store_trouble
from shared.clock import SystemClock
from shared.config.model import Config
from shared.logs.about import PROCESS
from shared.process import EXIT_DONE, run_service
from shared.supervision.supervisor import supervisor

_DESCRIPTION = "Answers the operator's commands and records what hosts decide."


async def serve(config: Config, stop: asyncio.Event) -> int:
    """Serve until `stop`."""
    clock = SystemClock()
    async with connected(config.nats, name="state_control", clock=clock, stop=stop) as bus:
        journal = NotingJournal(ChainJournal(JetStreamStream(bus), store_trouble(config.nats.monitor_url)))
        PROCESS.whereabouts = journal.whereabouts
        service = StateControl(
            journal=journal,
            requests=bus,
            discovery=bus,
            durability=ServerDurability(bus, config.nats),
            clock=clock,
            new_id=lambda: str(uuid4()),
        )
        description = ServiceDescription(name=SERVICE_NAME, description=_DESCRIPTION)
        async with NatsEndpoints(bus).serve(description, service.endpoints()):
            supervisor.ready("It answers commands.", unless=bus.trouble)
            await stop.wait()
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_service("services.state_control", _DESCRIPTION, serve))
