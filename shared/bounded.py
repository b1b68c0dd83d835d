"""Doing one thing for many, side by side, but never more than so many at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def for_each(
    items: Sequence[Item], do: Callable[[Item], Awaitable[Result]], *, at_once: int
) -> list[Result]:
    """The results in the order of the items. The first failure cancels the others, and is raised as it is."""
    free = asyncio.Semaphore(at_once)

    async def one(item: Item) -> Result:
        async with free:
            return await do(item)

    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one(item)) for item in items]
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
    return [task.result() for task in running]
