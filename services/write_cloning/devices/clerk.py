"""One thread that does blocking calls for one owner, in order, so that a call that hangs holds up nobody else.

The loop's shared executor is never used for devices: a few hung calls would fill it. The thread is a
daemon; a call that never returns must not keep the process from ending.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Clerk:
    """Starts its thread with the first call."""

    def __init__(self, name: str) -> None:
        """Belong to the running loop."""
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._has_started = False

    async def call(
        self,
        function: Callable[[], T],
        *,
        deadline_s: float | None = None,
        discard: Callable[[T], None] | None = None,
    ) -> T:
        """Run a function in the thread.

        A caller that is gone, by the deadline or because it was cancelled, cannot stop the function; what
        it returns after that is given to `discard`, in the thread.

        Raises:
            TimeoutError: the deadline came first.
        """
        call = _Call(self._loop, function, discard)
        if not self._has_started:
            self._has_started = True
            Thread(target=self._work, name=self._name, daemon=True).start()
        self._jobs.put(call.run)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(call.answer)
        except BaseException:
            call.abandon()
            raise

    def dismiss(self) -> None:
        """End the thread once it has done what it was given."""
        if self._has_started:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class _Call(Generic[T]):
    """One call between the loop, which may give up on it, and the thread, which may finish it at that very moment."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, function: Callable[[], T], discard: Callable[[T], None] | None
    ) -> None:
        self.answer: asyncio.Future[T] = loop.create_future()
        self._loop = loop
        self._function = function
        self._discard = discard
        self._lock = Lock()
        self._is_abandoned = False
        self._has_finished = False
        self._result: T | None = None

    def run(self) -> None:
        """Run in the thread."""
        try:
            result = self._function()
        except BaseException as failure:  # noqa: BLE001 - raised again in the caller
            self._hand_over(partial(self._fail, failure))
            return
        with self._lock:
            is_abandoned = self._is_abandoned
            self._has_finished = True
            self._result = result
        if is_abandoned:
            self._give_away(result)
        else:
            self._hand_over(partial(self._succeed, result))

    def abandon(self) -> None:
        """Run in the loop: nobody takes the result any more."""
        self.answer.cancel()
        with self._lock:
            self._is_abandoned = True
            has_finished, result = self._has_finished, self._result
        if has_finished:
            self._give_away(result)  # type: ignore[arg-type]  # finished, so it is a T

    def _give_away(self, result: T) -> None:
        if self._discard is not None:
            self._discard(result)

    def _hand_over(self, answer: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(answer)
        except RuntimeError:  # the loop has ended, and with it everyone who waited
            return

    def _succeed(self, result: T) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def _fail(self, failure: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(failure)
