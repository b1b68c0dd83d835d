"""How long application requests take: a sample of them, so that the others cost what they would cost without.

One request at a time is timed, and the next one a moment after it was answered, so that the samples of a second are few however
many requests there are. What has not been answered for long counts with its age: a device that hangs is seen while it does.
It knows neither devices nor sides.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from services.write_cloning.volume.requests import Request

PAUSE_S = 0.02  # between two samples
INTERVAL_S = 0.9  # what is told is of an interval of at least this length: monitors are told once a second


@dataclass(frozen=True, slots=True)
class Sampled:
    """The samples of one interval."""

    samples: int = 0
    sum_s: float = 0.0
    worst_s: float = 0.0

    def with_one(self, took_s: float) -> "Sampled":
        """One sample more."""
        return Sampled(self.samples + 1, self.sum_s + took_s, max(self.worst_s, took_s))

    @property
    def mean_s(self) -> float:
        """Of at least one sample."""
        return self.sum_s / self.samples


class Latency:
    """That of one kind of requests of one volume."""

    __slots__ = ("_answer", "_began", "_current", "_interval_began", "_last", "_loop", "_timed", "arm")

    def __init__(self, loop: asyncio.AbstractEventLoop, arm: Callable[[], None]) -> None:
        """`arm` sees to it that `begin` is called with the next request, before anything else is done with it."""
        self.arm = arm
        self._loop = loop
        self._timed: Request | None = None
        self._answer: Callable[[Request], None] = _nobody
        self._began = 0.0
        self._current = self._last = Sampled()
        self._interval_began = loop.time()

    def begin(self, request: Request) -> None:
        """Time this request: stand between it and whoever waits for it."""
        self._timed, self._answer, self._began = request, request.complete, self._loop.time()
        request.complete = self._completed

    def _completed(self, request: Request) -> None:
        self._current = self._current.with_one(self._loop.time() - self._began)
        answer, self._answer, self._timed = self._answer, _nobody, None
        self._loop.call_later(PAUSE_S, self.arm)
        request.complete = answer
        answer(request)

    def sampled(self) -> Sampled:
        """The samples of the last interval that is over, and what has been waiting for longer than that."""
        now = self._loop.time()
        if now - self._interval_began >= INTERVAL_S:
            self._last, self._current, self._interval_began = self._current, Sampled(), now
        waiting_s = now - self._began if self._timed is not None else 0.0
        return self._last.with_one(waiting_s) if waiting_s >= INTERVAL_S else self._last


def _nobody(_request: Request) -> None:
    """Nobody waits for a request while none is timed."""
