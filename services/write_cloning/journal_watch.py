"""Watches whether the journal still is what this host relied on: one that was put back from a copy looks whole by itself.

Whoever decides checks that for himself; the watch makes it known while nobody decides anything.
"""

import asyncio

from services.write_cloning.host import Host

INTERVAL_S = 10.0


async def watch_journal(host: Host, *, interval_s: float = INTERVAL_S) -> None:
    """Look again and again, for ever."""
    while True:
        await asyncio.sleep(interval_s)
        await host.look_at_journal()
