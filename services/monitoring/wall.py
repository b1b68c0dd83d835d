"""The wall clock as seconds since 1970, from the one clock that there is."""

from services.monitoring.times import seconds_of
from shared.clock import Clock


class Wall:
    """Tells what time it is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        """Now."""
        return seconds_of(self._clock.now_rfc3339())
