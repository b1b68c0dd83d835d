"""The host's own word for whoever is on its machine: all its migrations, on a Unix socket in its state directory.

It can be asked from the start of the service to its end, whatever NATS is like; it only tells, and costs nothing until somebody
asks. Only this user, and root, can connect.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from services.write_cloning.export.errors import ExportError
from services.write_cloning.export.listener import listen_unix
from services.write_cloning.host import Host
from shared.bus.connection import Bus
from shared.clock import Clock
from shared.messages.codec import encode
from shared.messages.local import LocalStatus
from shared.one_answer import OneAnswer
from shared.supervision.supervisor import supervisor

log = logging.getLogger(__name__)


class LocalTelling:
    """What is told; the parts of the service are added as they come to be."""

    def __init__(self, *, host_name: str, run: int, clock: Clock) -> None:
        """There is neither a connection to NATS nor a volume yet."""
        self.bus: Bus | None = None
        self.host: Host | None = None
        self._host_name = host_name
        self.run = run
        self._clock = clock

    def status(self) -> LocalStatus:
        """How it is right now."""
        since = self.bus.lost_at if self.bus is not None else None
        migrations = self.host.own_statuses() if self.host is not None else ()
        return LocalStatus(
            host=self._host_name,
            run=self.run,
            sentence=supervisor.health().sentence,
            nats_is_away=self.bus is None or not self.bus.is_connected,
            nats_lost_at=since,
            migrations=tuple(replace(each, nats_lost_at=since) for each in migrations),
            closed=self.host.closed if self.host is not None else (),
            at=self._clock.now_rfc3339(),
        )

    def as_bytes(self) -> bytes:
        """The same, as one JSON document."""
        return encode(self.status())


@asynccontextmanager
async def telling_locally(path: Path, answer: Callable[[], bytes]) -> AsyncIterator[None]:
    """Answer there for as long as the context is open.

    A socket that cannot be had is no reason to serve nobody: it is said, and NATS is the only way to ask then.
    """
    try:
        listener = listen_unix(path)
    except ExportError as error:
        log.warning("this host can be asked by NATS only: %s", error)
        yield
        return
    answering = OneAnswer(answer)
    server = await listener.serve(answering)
    try:
        yield
    finally:
        server.close()
        listener.close()
        answering.hang_up()
