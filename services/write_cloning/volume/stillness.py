"""Waiting until requests are over: writes before the routing changes, everything before a volume is closed."""

import asyncio
from collections.abc import Callable

from services.write_cloning.volume.failures import SideFailedError


class Stillness:
    """Who waits for what. `waiters` is empty nearly always, and looked at after every request."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self.waiters: list[_Waiter] = []

    async def until(self, is_so: Callable[[], bool], *, ends_with_failure: bool) -> None:
        """Wait until something is so.

        Raises:
            SideFailedError: a side failed first, if the wait `ends_with_failure`.
        """
        while not is_so():
            waiter = _Waiter(is_so, ends_with_failure=ends_with_failure)
            self.waiters.append(waiter)
            try:
                await waiter.over
            finally:
                self.waiters.remove(waiter)

    def look(self) -> None:
        """Wake those whose time has come."""
        for waiter in self.waiters:
            if not waiter.over.done() and waiter.is_so():
                waiter.over.set_result(None)

    def side_failed(self) -> None:
        """A decision is due: whoever could keep it waiting goes first."""
        for waiter in self.waiters:
            if waiter.ends_with_failure and not waiter.over.done():
                waiter.over.set_exception(SideFailedError())


class _Waiter:
    def __init__(self, is_so: Callable[[], bool], *, ends_with_failure: bool) -> None:
        self.is_so = is_so
        self.ends_with_failure = ends_with_failure
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
