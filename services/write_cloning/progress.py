"""Tells monitors how migrations get on: a message for each that has changed, once a second.

What does not change is told again now and then, so that a monitor that came later learns of it, and others that it is still so.
"""

import asyncio
import logging
from dataclasses import replace

from services.write_cloning.host import Host
from shared.bus.interface import Requests
from shared.messages.status import HostView, progress_subject
from shared.migration.refusals import Refusal

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
AGAIN_AFTER_S = 30.0


async def tell_progress(host: Host, requests: Requests) -> None:
    """Tell for ever. What cannot be told is told later: nobody relies on it."""
    told: dict[str, tuple[HostView, float]] = {}
    now = asyncio.get_running_loop().time
    while True:
        for view in host.views():
            seen = replace(view, at="")
            last, at = told.get(view.name, (None, 0.0))
            if last == seen and now() - at < AGAIN_AFTER_S:
                continue
            try:
                await requests.publish(progress_subject(view.name), view)
            except Refusal as refusal:
                log.debug("progress is not told: %s", refusal.message)
                break
            told[view.name] = seen, now()
            await asyncio.sleep(0)  # many migrations are no reason for requests to wait
        await asyncio.sleep(INTERVAL_S)
