"""The wall clock, passed to whoever needs it, so that a simulation can own the time.

Only for telling people when something was: nothing is ever decided on it. Durations are measured on the loop's clock.
"""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells what time it is."""

    def now_rfc3339(self) -> str:
        """Now, in UTC, as records and messages carry it: `2026-01-31T12:00:00.000000Z`."""


class SystemClock:
    """The machine's clock."""

    def now_rfc3339(self) -> str:
        """Now, in UTC."""
        return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
