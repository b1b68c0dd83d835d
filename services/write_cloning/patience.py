"""How long a device is waited for before it is blamed: time in which this process could have heard of it.

A process that was frozen, as a virtual machine that is moved is, finds on waking that all its time has passed, and has not
looked yet at what the devices did meanwhile. So the time is counted in slices, one after the other, and a freeze is part of one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SLICES = 8


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """End what is waited for inside after so long.

    Raises:
        TimeoutError: that was done.
    """
    loop = asyncio.get_running_loop()
    passed = 0
    timer: asyncio.TimerHandle | None = None
    async with asyncio.timeout(None) as timeout:

        def begin_slice() -> None:
            nonlocal timer
            timer = loop.call_later(seconds / SLICES, end_slice)

        def end_slice() -> None:
            nonlocal passed
            passed += 1
            if passed == SLICES:
                timeout.reschedule(loop.time())
            else:
                begin_slice()

        begin_slice()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
