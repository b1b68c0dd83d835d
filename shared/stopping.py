"""Ending what is still waited for: a stop that comes before a service has anything open, and a task that is not one's own."""

import asyncio
from typing import Any

_CANCEL_AGAIN_S = 0.1


class StoppedError(Exception):
    """The stop came first. A process ends with it as one that is done."""


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel a task of somebody else's until it is done.

    Once is not enough: where what it waits for comes at the same moment, `asyncio.wait_for` of Python 3.11 swallows it,
    and a loop around it goes on for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_S)
