"""What is data and what is a hole, asked of the side that reads come from, for clients that want to know before they read.

The answer is advice: everything may be said to be data. So nobody waits for it longer than for a read: a side that leaves the
routing is asked no further, and one that takes too long is answered for.
"""

import asyncio
from collections.abc import Sequence

from services.write_cloning.devices.interface import Extent
from services.write_cloning.volume.route import BIT, Route


class Allocation:
    """The questions of one volume."""

    def __init__(self, route: Route, patience_s: float | None) -> None:
        """`patience_s` is how long one side may take; None waits for ever."""
        self._route = route
        self._patience_s = patience_s
        self._asked: dict[asyncio.Timeout, int] = {}  # of which side

    async def extents(self, offset: int, length: int, most: int) -> Sequence[Extent]:
        """At most so many extents of a range; they may end before it does.

        Raises:
            OSError: the device could not be asked.
        """
        while True:
            side = BIT[self._route.reads]
            patience = asyncio.timeout(self._patience_s)
            try:
                async with patience:
                    self._asked[patience] = side
                    return await self._route.reader().extents(offset, length, most)
            except TimeoutError:
                if BIT[self._route.reads] == side:
                    return [Extent(offset, length, is_hole=False)]
            finally:
                self._asked.pop(patience, None)

    def leave(self, side: int) -> None:
        """Nobody waits for this side any more."""
        for patience, asked in self._asked.items():
            if asked == side and not patience.expired():
                patience.reschedule(0)
