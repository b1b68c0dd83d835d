"""What migrations are told of their exports, also while the server closes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from services.write_cloning.export.limits import Limits
from services.write_cloning.export.listener import listen_unix
from services.write_cloning.export.server import ExportServer
from services.write_cloning.offering import Offering
from services.write_cloning.volume.volume import Volume
from shared.clock import SystemClock
from shared.nbd.constants import Command
from tests.integration.export.harness import MIB, RawClient
from tests.integration.export.memory_volume import MemoryVolume


@pytest.fixture
async def server() -> AsyncIterator[ExportServer]:
    async with ExportServer(SystemClock(), Limits(linger_seconds=0.3)) as server:
        yield server


@pytest.fixture
def offering(server: ExportServer, short_path: Path) -> Offering:
    server.listen(listen_unix(short_path / "s"))
    offering = Offering(server, str(short_path / "s"), 256 * MIB)
    offering.add("v", cast(Volume, MemoryVolume(8 * MIB)))
    return offering


async def test_connections_are_those_of_the_export(offering: Offering, short_path: Path) -> None:
    assert offering.connections("v") == ()
    client = await RawClient.connect(short_path / "s", "v")
    (told,) = offering.connections("v")
    assert "this process" in told.peer
    await offering.remove("v")
    assert offering.connections("v") == ()
    client.close()


async def test_server_that_closes_may_be_asked_while_a_client_takes_no_replies(
    server: ExportServer, offering: Offering, short_path: Path
) -> None:
    """The closing lasts as long as the client's grace, and whoever tells the progress meanwhile must not fail over it."""
    client = await RawClient.connect(short_path / "s", "v")
    for _ in range(4):
        await client.request(Command.READ, 0, 8 * MIB)
    await asyncio.sleep(0.1)
    told = []
    async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(server.close())
        while not closing.done():
            told.append((offering.connections("v"), offering.uri("v")))
            await asyncio.sleep(0.01)
    assert len(told) > 10
    assert told[-1] == ((), f"nbd+unix:///v?socket={short_path / 's'}")
    client.close()
