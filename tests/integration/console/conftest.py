"""A real NATS server and a scripted state control on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.bus.connection import connect
from shared.bus.server import nats_server
from shared.clock import SystemClock
from tests.integration.console.scripted_control import ScriptedControl


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a NATS server without any service."""
    async with nats_server(tmp_path / "nats") as running:
        yield running.url


@pytest.fixture
async def control(server: str) -> AsyncIterator[ScriptedControl]:
    """State control, answering as a test has it."""
    bus = await connect(server, name="script", clock=SystemClock())
    scripted = ScriptedControl(bus)
    try:
        async with scripted.serving():
            yield scripted
    finally:
        await bus.close()
