"""A process that can be killed: from one step to the next nothing of it runs any more, and nothing is unwound."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any

from tests.simulation.loop import OWNER

NOBODY = Context()  # what runs in it belongs to the world, whoever asked for it


class Process:
    """Whatever runs in its context belongs to it: tasks, timers, completions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_admitted = False  # of a host: it has had an answer from startup
        self.run = 0  # of a host
        self.began_on = 0  # of a host: how often the journal had gone back before
        self.context = copy_context()
        self.context.run(OWNER.set, self)
        self.task: asyncio.Task[Any] | None = None

    def start(self, main: Coroutine[Any, Any, Any]) -> None:
        """Begin to live."""
        self.task = asyncio.get_running_loop().create_task(main, context=self.context)


async def sleep_for_ever() -> None:
    """What is left to do for who has just been killed."""
    await asyncio.get_running_loop().create_future()
