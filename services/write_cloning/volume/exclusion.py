"""A range of a volume that is kept free of application writes, for the copier."""

import asyncio
from collections.abc import Callable


class Exclusion:
    """A place in the order of writes, held by no write; see `Volume.exclude`."""

    __slots__ = ("blockers", "granted", "high", "last_region", "low", "region")

    def __init__(self, low: int, high: int, granted: "asyncio.Future[None]") -> None:
        """Bytes `low` to `high`."""
        self.low = low
        self.high = high
        self.granted = granted
        self.region = self.last_region = self.blockers = 0

    async def wait(self, give_back: Callable[[], None]) -> None:
        """Wait for the grant; a waiter that is cancelled gives it back as soon as it comes."""
        try:
            await asyncio.shield(self.granted)
        except asyncio.CancelledError:
            self.granted.add_done_callback(lambda _: give_back())
            raise
