"""Whoever connects to a socket is told one thing, and the connection ends. Nothing that he sends is read.

The event loop itself answers, so a process that hangs answers nobody. What is told, and how the socket came to be, is not known
here.
"""

import asyncio
from collections.abc import Callable
from typing import cast

CLIENTS_MAX = 8  # who have not taken their answer yet; whoever comes beyond that is hung up on
PATIENCE_S = 5.0  # with who does not take it


class OneAnswer:
    """Makes the protocols of one server."""

    def __init__(self, answer: Callable[[], bytes], *, patience_s: float = PATIENCE_S) -> None:
        """`answer` is called for each client."""
        self._answer = answer
        self._patience_s = patience_s
        self._telling: set[asyncio.WriteTransport] = set()

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a client who has just come."""
        return _Client(self)

    def hang_up(self) -> None:
        """On everyone who has not taken his answer yet."""
        for transport in tuple(self._telling):
            transport.abort()

    def tell(self, transport: asyncio.WriteTransport) -> asyncio.TimerHandle | None:
        """Begin to answer; what is returned hangs up in the end on who does not take it."""
        if len(self._telling) >= CLIENTS_MAX:
            transport.abort()
            return None
        self._telling.add(transport)
        end = asyncio.get_running_loop().call_later(self._patience_s, transport.abort)
        transport.write(self._answer())
        transport.close()
        return end

    def told(self, transport: asyncio.WriteTransport) -> None:
        """He is gone."""
        self._telling.discard(transport)


class _Client(asyncio.Protocol):
    def __init__(self, answering: OneAnswer) -> None:
        self._answering = answering
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Someone asks."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._end = self._answering.tell(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio's signature
        """He has what he wanted, or is no longer waited for."""
        self._answering.told(self._transport)
        if self._end is not None:
            self._end.cancel()
