"""Fixtures: the services on a bus in memory, with the broker in reach for damage."""

from collections.abc import AsyncIterator

import pytest

from shared.bus.memory import MemoryBroker
from tests.support.buses import MemoryWiring
from tests.support.services import Services, running_services


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    async with running_services(MemoryWiring()) as services:
        yield services


@pytest.fixture
def broker(services: Services) -> MemoryBroker:
    assert isinstance(services.wiring, MemoryWiring)
    return services.wiring.broker
