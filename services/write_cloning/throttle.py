"""A limit on the copier's speed: bytes per second, kept on average over a second or so, changed at any time."""

import asyncio

BURST_S = 0.25  # how much unused allowance may be saved up


class Throttle:
    """Whoever moves bytes takes them first. Without a limit that costs nothing."""

    def __init__(self, bytes_per_s: int | None = None) -> None:
        """Begin with a limit, or None for none."""
        self._limit = bytes_per_s
        self._free_at = (
            0.0  # when all that was taken is paid for; 0 where the limit is new, with nothing saved up
        )
        self._changed = asyncio.Event()

    @property
    def bytes_per_s(self) -> int | None:
        """The limit in force."""
        return self._limit

    def limit(self, bytes_per_s: int | None) -> None:
        """Change the limit; whoever waits is held to the new one from now on."""
        self._limit = bytes_per_s
        self._free_at = 0.0
        self._wake()

    async def take(self, length: int) -> None:
        """Wait until `length` more bytes may be moved."""
        loop = asyncio.get_running_loop()
        while self._limit is not None:
            now = loop.time()
            if self._free_at <= now:
                saved_since = max(self._free_at, now - BURST_S) if self._free_at else now
                self._free_at = saved_since + length / self._limit
                return
            try:
                async with asyncio.timeout_at(self._free_at):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def give_back(self, length: int) -> None:
        """Return bytes that were taken and did not have to be moved."""
        if self._limit is not None:
            self._free_at -= length / self._limit
            self._wake()

    def _wake(self) -> None:
        """Let those who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()
