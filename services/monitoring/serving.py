"""The HTTP server: uvicorn on a socket that we bind, in the loop that we run, stopped when we say so."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from services.monitoring.connections import Connection
from shared.migration.refusals import Code, Refusal

BACKLOG = 128
GRACE_S = 2  # for answers that are under way when the service stops


@dataclass(frozen=True, slots=True)
class Place:
    """Where the page is served."""

    host: str
    port: int

    @classmethod
    def of(cls, listen: str) -> "Place":
        """That of the configuration, which has been checked."""
        host, _, port = listen.rpartition(":")
        return cls(host.strip("[]"), int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback


class _Server(uvicorn.Server):
    """Leaves signals to the service, whose stop has an order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def serving(app: ASGIApp, place: Place, before_end: Callable[[], None]) -> AsyncIterator[str]:
    """Serve while the context is open; yields the URL. `before_end` ends what would otherwise last for ever.

    Raises:
        Refusal: (`bad-request`) it cannot be listened there.
    """
    listening = _listening(place)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        backlog=BACKLOG,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[listening]))
        try:
            yield _url(listening)
        finally:
            before_end()
            server.should_exit = True


def _listening(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((place.host, place.port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        where = f"{place.host} port {place.port}"
        raise Refusal(
            Code.BAD_REQUEST, f"monitoring.listen: {where} cannot be listened on: {error.strerror}."
        ) from error
    listening.setblocking(False)
    return listening


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
