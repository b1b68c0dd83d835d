"""How a job beside the data path gets on: whether it may go on, how much it has done, and how fast it was of late."""

import asyncio
from collections import deque

RATE_WINDOW_S = 4.0


class Pace:
    """Of one job. Whoever does a piece of it waits for `going` first, and tells with `add` when it is done."""

    def __init__(self) -> None:
        """Begin with nothing done, and not paused."""
        self.done_bytes = 0
        self._going = asyncio.Event()
        self._going.set()
        # When how much was done, oldest first: all of the window, the last one before it, and two in any case.
        self._samples: deque[tuple[float, int]] = deque()

    @property
    def is_paused(self) -> bool:
        """Whether `pause` is in force."""
        return not self._going.is_set()

    def pause(self) -> None:
        """Begin no further piece; those begun are finished."""
        self._going.clear()
        self._samples.clear()

    def resume(self) -> None:
        """Go on."""
        self._going.set()

    async def going(self) -> None:
        """Wait until the job is not paused."""
        await self._going.wait()
        if not self._samples:
            self._samples.append((_now(), self.done_bytes))

    def add(self, length: int) -> None:
        """So many more bytes are done."""
        self.done_bytes += length
        self._samples.append((_now(), self.done_bytes))
        self._forget(self._samples[-1][0])

    def rate_bytes_per_s(self) -> float:
        """Progress over the last few seconds; over the last pieces where they take longer than that.

        It is measured from piece to piece. Only when the next one takes longer than those before does the time count that has
        passed since the last.
        """
        now = _now()
        self._forget(now)
        if len(self._samples) < 2 or self.is_paused:  # noqa: PLR2004 - a rate lies between two
            return 0.0
        (since, base), (last, done) = self._samples[0], self._samples[-1]
        usual_s = (last - since) / (len(self._samples) - 1)
        return (done - base) / max(last - since, now - since - usual_s, 0.001)

    def _forget(self, now: float) -> None:
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_WINDOW_S:  # noqa: PLR2004 - see above
            self._samples.popleft()


def _now() -> float:
    return asyncio.get_running_loop().time()
