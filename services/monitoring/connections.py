"""Bounds on the connections to the page: whoever only holds some open takes nothing from the others.

uvicorn counts every connection alike, and gives one that has not asked for anything yet all the time it wants. Here each has some
seconds for its next request, and when there are too many, the one that has been silent for longest gives way to the newest.
"""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

CONNECTIONS_MAX = 512
REQUEST_TIMEOUT_S = 10.0  # from the connection, or the last answer, to the end of the next request's head
TAKING_TIMEOUT_S = 30.0  # for whoever asked to take what is ready for him


class Connection(H11Protocol):
    """One connection."""

    _silent_since = 0.0
    _limit: asyncio.TimerHandle | None = None  # on its silence
    _taking_limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`, and so below."""
        super().connection_made(transport)
        self._fall_silent()
        if len(self.connections) > CONNECTIONS_MAX:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """A request may be complete now."""
        super().data_received(data)
        if not self.is_silent:
            _cancel(self._limit)

    def on_response_complete(self) -> None:
        """The next request is waited for, unless it is there already."""
        super().on_response_complete()
        if self.is_silent:
            self._fall_silent()

    def pause_writing(self) -> None:
        """The browser does not take what it asked for."""
        super().pause_writing()
        self._taking_limit = self._after(TAKING_TIMEOUT_S, self._taking_limit)

    def resume_writing(self) -> None:
        """It has."""
        super().resume_writing()
        _cancel(self._taking_limit)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        _cancel(self._limit)
        _cancel(self._taking_limit)

    @property
    def is_silent(self) -> bool:
        """Whether it has no request that is being answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _fall_silent(self) -> None:
        self._silent_since = self.loop.time()
        self._limit = self._after(REQUEST_TIMEOUT_S, self._limit)

    def _make_room(self) -> None:
        """Close the one that has been silent for longest; this one, where all others are being answered."""
        silent = [each for each in self.connections if isinstance(each, Connection) and each.is_silent]
        oldest = min(silent, key=lambda each: each._silent_since)  # noqa: SLF001 # of this class
        self.connections.discard(oldest)  # its end is told later, and it must not be counted until then
        oldest.transport.abort()

    def _after(self, seconds: float, before: asyncio.TimerHandle | None) -> asyncio.TimerHandle:
        _cancel(before)
        abort: Callable[[], None] = self.transport.abort
        return self.loop.call_later(seconds, abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
