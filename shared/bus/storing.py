"""Whether the NATS server can store at all: its own word, on its monitoring page.

A server whose store was full once does not always answer who publishes, and stores nothing more when there is room again
before it is restarted. Who has waited in vain for an acknowledgement learns here why.
"""

import asyncio
from collections.abc import Awaitable, Callable

import orjson

from shared.bus.monitor_page import PAGE_TIMEOUT_S, read_page

REMEDY = "Make room for the NATS server's store, and restart that server: before, it stores nothing"
_HEALTH = "/healthz"
_WRITING = (
    "write error"  # in what it says of a stream that it could not write; other troubles are not ours to tell
)
_OF_A_FULL_STORE = frozenset({10023, 10047})  # insufficient resources, storage resources exceeded
_FULL = "no space left"

StoreTrouble = Callable[[], Awaitable[str]]


def store_trouble(monitor_url: str | None) -> StoreTrouble:
    """A question to the server of this monitoring page: why it stores nothing, as a clause; empty where it says nothing."""

    async def ask() -> str:
        if monitor_url is None:
            return ""
        try:
            async with asyncio.timeout(PAGE_TIMEOUT_S):
                _status, body = await read_page(monitor_url, _HEALTH)
            error = str(orjson.loads(body).get("error", ""))
        except (TimeoutError, OSError, EOFError, ValueError, AttributeError):
            return ""  # that it cannot be asked is no trouble of its store
        return f"the NATS server cannot store: {error}" if _WRITING in error else ""

    return ask


async def nothing_known() -> str:
    """Where nobody can be asked."""
    return ""


def remedy_of(code: int | None, description: str) -> str:
    """What to do about JetStream's own error, as a sentence after it; empty for those that have nothing to do with room."""
    return f" {REMEDY}." if code in _OF_A_FULL_STORE or _FULL in description else ""
