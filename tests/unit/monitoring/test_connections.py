"""One connection to the page: who does not take what he asked for is not waited for, for ever."""

import asyncio
from typing import cast

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from services.monitoring import connections
from services.monitoring.connections import Connection


class Transport:
    """One that is never read from."""

    is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def get_extra_info(self, name: str) -> None:
        return None


async def connection_of(transport: Transport) -> Connection:
    config = uvicorn.Config(PlainTextResponse("never asked for"), log_config=None)
    made = Connection(config, ServerState(), {}, asyncio.get_running_loop())
    made.connection_made(cast("asyncio.Transport", transport))
    return made


async def test_who_does_not_take_what_is_ready_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TAKING_TIMEOUT_S", 0.01)
    slow, quick = Transport(), Transport()
    slow_one, quick_one = await connection_of(slow), await connection_of(quick)
    slow_one.pause_writing()
    quick_one.pause_writing()
    quick_one.resume_writing()
    await asyncio.sleep(0.05)
    assert (slow.is_aborted, quick.is_aborted) == (True, False)


async def test_connection_that_has_ended_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.01)
    transport = Transport()
    ended = await connection_of(transport)
    ended.connection_lost(OSError())
    await asyncio.sleep(0.05)
    assert not transport.is_aborted
