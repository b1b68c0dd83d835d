"""The wall clock of the simulation: it follows the loop's."""

import asyncio


class VirtualClock:
    """The wall clock of the simulation."""

    def now_rfc3339(self) -> str:
        now_s = asyncio.get_running_loop().time()
        return f"2026-01-31T12:{int(now_s) // 60 % 60:02d}:{now_s % 60:09.6f}Z"
