"""Establishes that the journal's acknowledgement means «on disk»: the server says so, or the operator accepts less.

By default a NATS server acknowledges first and syncs up to two minutes later; a power cut then takes acknowledged
records with it. With `sync_interval: always` it syncs before it acknowledges. The server's monitoring endpoint tells
which it is. What was established holds for one connection; after a reconnection it is established anew.
"""

import asyncio
import logging
import re
from collections.abc import Sequence

import orjson

from shared.bus.connection import Bus
from shared.bus.monitor_page import PAGE_TIMEOUT_S, read_page
from shared.config.model import NatsConfig
from shared.config.urls import without_secrets
from shared.migration.refusals import Code, Refusal

_log = logging.getLogger(__name__)

SERVER_VERSION_MIN = (2, 15)
_ACCEPTING = "`accept_unsynced_journal = true` in the section `[nats]` of the configuration accepts that"


class ServerDurability:
    """Implements `Durability` by asking the server's monitoring endpoint."""

    def __init__(self, bus: Bus, config: NatsConfig) -> None:
        self._bus = bus
        self._monitor_url = config.monitor_url
        self._accepts_less = config.accept_unsynced_journal
        self._established_after: int | None = None  # that many losses of the connection
        self._warnings: tuple[str, ...] = ()

    @property
    def warnings(self) -> Sequence[str]:
        """See `Durability`."""
        return self._warnings

    async def require(self) -> None:
        """See `Durability`."""
        losses = self._bus.losses
        if self._established_after == losses and self._bus.is_connected:
            return
        lacking = await self.lacking()
        if lacking is None:
            self._warnings = ()
        elif self._accepts_less:
            self._warnings = (f"A power cut may take acknowledged records with it: {lacking}.",)
            _log.warning(self._warnings[0])
        else:
            raise Refusal(Code.JOURNAL_UNSYNCED, f"The error flag is not set: {lacking}. {_ACCEPTING}.")
        self._established_after = losses

    async def lacking(self) -> str | None:
        """What is not established, as a clause; None when all is.

        Raises:
            Refusal: `journal-away`.
        """
        if not self._bus.is_connected:
            raise Refusal(Code.JOURNAL_AWAY, f"There is no connection to NATS at {self._bus.url}.")
        server = self._bus.server
        if version_of(server.version) < SERVER_VERSION_MIN:
            return f"the NATS server is of version {server.version}, older than 2.15"
        if self._monitor_url is None:
            return (
                "whether the NATS server has `sync_interval: always` cannot be told, "
                "because `nats.monitor_url` is not configured"
            )
        return await self._lacking_at(self._monitor_url, server.server_id)

    async def _lacking_at(self, monitor_url: str, server_id: str) -> str | None:
        shown = without_secrets(monitor_url)
        try:
            async with asyncio.timeout(PAGE_TIMEOUT_S):
                answer = orjson.loads(await _page(monitor_url, "/jsz?config=true"))
            answering_id, config = answer["server_id"], answer["config"]
        except TimeoutError:
            return f"the monitoring endpoint {shown} does not answer"
        except (OSError, EOFError, ValueError, LookupError, TypeError) as error:
            return f"the monitoring endpoint {shown} does not tell ({type(error).__name__}: {error})"
        if answering_id != server_id:
            return f"the monitoring endpoint {shown} is of another NATS server than the one that is connected"
        if config.get("sync_always") is not True:
            return "the NATS server does not have `sync_interval: always` in its `jetstream` section"
        return None


def version_of(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


async def _page(url: str, path: str) -> bytes:
    status, body = await read_page(url, path)
    if " 200 " not in status:
        raise ValueError(f"it answers {status!r}")
    return body
