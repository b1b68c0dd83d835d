"""Sweeps: while somebody waits for memory, clients are looked at now and then, and who moves too little gives way.

Nothing runs while there is memory enough: a sweep is due when somebody begins to wait, and then one after another until
nobody does. What moves too little is the connection's to say.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol


class Swept(Protocol):
    """What may have to give way."""

    def sweep(self) -> bool:
        """Give way if too little has moved since the last sweep; whether somebody waits for memory still."""


class Sweeps:
    """Those of one server."""

    def __init__(self, seconds: float, all_of_them: Callable[[], Iterable[Swept]]) -> None:
        """Sweep every `seconds` while it is needed. Belongs to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._all_of_them = all_of_them
        self._next: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Somebody waits for memory: take note of what everybody holds now."""
        if self._next is None:
            self._sweep()

    def stop(self) -> None:
        """Sweep no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _sweep(self) -> None:
        self._next = self._loop.call_later(self._seconds, self._sweep)
        if not any([swept.sweep() for swept in list(self._all_of_them())]):  # noqa: C419 (every one, not up to the first)
            self.stop()
