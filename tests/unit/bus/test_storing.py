"""What the NATS server says of its store on its monitoring page."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shared.bus.storing import REMEDY, remedy_of, store_trouble

FULL = "JetStream stream '$G > CUTOVER_JOURNAL' write error: write /n/1.blk: no space left on device"


@asynccontextmanager
async def page(answer: bytes) -> AsyncIterator[str]:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readline()).startswith(b"GET /healthz ")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(tell, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (b'HTTP/1.0 200 OK\r\n\r\n{"status":"ok"}', ""),
        (
            b'HTTP/1.0 503 no\r\n\r\n{"status":"unavailable","error":"' + FULL.encode() + b'"}',
            f"the NATS server cannot store: {FULL}",
        ),
        (b'HTTP/1.0 503 no\r\n\r\n{"status":"unavailable","error":"JetStream not current"}', ""),
        (b"HTTP/1.0 404 no\r\n\r\nnot found", ""),
        (b"HTTP/1.0 200 OK\r\n\r\n[]", ""),
        (b"", ""),
    ],
)
async def test_only_a_store_that_cannot_be_written_is_its_trouble(answer: bytes, trouble: str) -> None:
    async with page(answer) as url:
        assert await store_trouble(url)() == trouble


async def test_nobody_to_ask_is_no_trouble() -> None:
    async with page(b"") as url:
        pass
    assert await store_trouble(url)() == ""
    assert await store_trouble(None)() == ""


@pytest.mark.parametrize(
    ("code", "description", "is_of_room"),
    [
        (10077, "write /n/1.blk: no space left on device", True),
        (10047, "insufficient storage resources available", True),
        (10023, "insufficient resources", True),
        (10060, "expected stream does not match", False),
        (None, "no reason given", False),
    ],
)
def test_what_to_do_is_said_where_room_is_what_lacks(
    code: int | None, description: str, is_of_room: bool
) -> None:
    assert remedy_of(code, description) == (f" {REMEDY}." if is_of_room else "")
