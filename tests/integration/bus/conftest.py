"""A NATS server with its streams, and the two kinds of bus that meet the same tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.buses import MemoryWiring, NatsWiring, Wiring, nats_wiring


@asynccontextmanager
async def _memory(_folder: Path) -> AsyncIterator[Wiring]:
    yield MemoryWiring()


@pytest.fixture(params=["memory", "nats"])
async def wiring(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Wiring]:
    """Both kinds, one after the other."""
    make = {"memory": _memory, "nats": nats_wiring}[request.param]
    async with make(tmp_path) as wiring:
        yield wiring


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsWiring]:
    """The real one alone."""
    async with nats_wiring(tmp_path) as wiring:
        yield wiring
