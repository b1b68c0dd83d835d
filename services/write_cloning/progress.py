"""Tells monitors how migrations get on: a message for each that has changed, once a second."""

import asyncio
import logging
from dataclasses import replace

from services.write_cloning.host import Host
from shared.bus.interface import Requests
from shared.messages.status import HostView, progress_subject
from shared.migration.refusals import Refusal

log = logging.getLogger(__name__)

INTERVAL_S = 1.0


async def tell_progress(host: Host, requests: Requests) -> None:
    """Tell for ever. What cannot be told is told later: nobody relies on it."""
    told: dict[str, HostView] = {}
    while True:
        for view in host.views():
            seen = replace(view, at="")
            if told.get(view.name) == seen:
                continue
            try:
                await requests.publish(progress_subject(view.name), view)
            except Refusal as refusal:
                log.debug("progress is not told: %s", refusal.message)
                break
            told[view.name] = seen
        await asyncio.sleep(INTERVAL_S)
