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

    def add(self, length: int) -> None:
        """So many more bytes are done."""
        self.done_bytes += length
        self._samples.append((asyncio.get_running_loop().time(), self.done_bytes))

    def rate_bytes_per_s(self) -> float:
        """Progress over the last few seconds."""
        now = asyncio.get_running_loop().time()
        while self._samples and self._samples[0][0] < now - RATE_WINDOW_S:
            self._samples.popleft()
        if not self._samples or self.is_paused:
            return 0.0
        since, base = self._samples[0]
        return (self.done_bytes - base) / max(now - since, 0.001)
