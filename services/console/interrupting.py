"""Ctrl-C and SIGTERM while something runs: the work is cancelled once, in order, and whoever started it is told."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.console.output import Output

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The operator, or the system, asked for an end."""


@asynccontextmanager
async def interruptible(out: Output) -> AsyncIterator[None]:
    """Cancel the body at the first signal. Later ones change nothing: no orderly stop is cut short by accident.

    Raises:
        Interrupted: in place of the cancellation, once the body has cleaned up after itself.
    """
    loop = asyncio.get_running_loop()
    heard = 0
    try:
        async with asyncio.timeout(None) as until:

            def hear() -> None:
                nonlocal heard
                heard += 1
                out.note(
                    "Stopping." if heard == 1 else "Still stopping; what is in flight is brought to its end."
                )
                if heard == 1:
                    until.reschedule(loop.time())

            for number in _SIGNALS:
                loop.add_signal_handler(number, hear)
            yield
    except TimeoutError:
        if not heard:
            raise
        raise Interrupted from None
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
