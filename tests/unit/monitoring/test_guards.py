"""Under which names the page is served: a name that somebody else has led here is none."""

import pytest
from starlette.types import Message, Receive, Scope, Send

from services.monitoring.guards import Guard


async def status(host: str, *, loopback_only: bool, names: tuple[str, ...] = ()) -> int:
    sent: list[Message] = []

    async def page(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", host.encode())]}
    await Guard(page, loopback_only=loopback_only, host_names=names)(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("host", "on_loopback", "elsewhere"),
    [
        ("127.0.0.1:8321", 200, 200),
        ("localhost", 200, 200),
        ("[::1]:8321", 200, 200),
        ("10.0.0.7:8321", 421, 200),  # an address is nobody's name
        ("[fd00::7]", 421, 200),
        ("cutover.example", 200, 200),  # of the configuration
        ("CUTOVER.example:443", 200, 200),
        ("evil.example:8321", 421, 421),
        ("cutover.example.evil.example", 421, 421),
        ("", 421, 421),
    ],
)
async def test_only_who_asks_for_this_place_is_answered(host: str, on_loopback: int, elsewhere: int) -> None:
    names = ("cutover.example",)
    assert await status(host, loopback_only=True, names=names) == on_loopback
    assert await status(host, loopback_only=False, names=names) == elsewhere
