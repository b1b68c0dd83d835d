"""An event loop that owns the time and the order of things: virtual clock, one seed, no real waiting.

Of what is ready, any may go next. Time stands still while anything is ready and jumps to the next timer when nothing is, so
a minute of waiting costs nothing and a seed replays exactly. What belongs to a process that was killed never runs again.
"""

import asyncio
import random
from collections.abc import Coroutine
from contextvars import Context, ContextVar
from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol

STEPS_MAX = 1_000_000  # of one seed; beyond, something goes round in circles
BURIAL_ROUNDS_MAX = 30


class Mortal(Protocol):
    """What a handle may belong to."""

    is_dead: bool


OWNER: ContextVar[Mortal | None] = ContextVar("owner", default=None)


class StuckError(Exception):
    """Nothing is ready and nothing is due, or it never ends."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash follows from the seed: asyncio keeps tasks in sets, and cancels them in the order of those."""

    _numbers = count()

    def __init__(self, *args: Any, **named: Any) -> None:
        self._number = next(self._numbers)
        super().__init__(*args, **named)

    def __hash__(self) -> int:
        return self._number


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module's docstring."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._now = 0.0
        self._draw = rng.random
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.Handle]] = []  # a heap: due at, number
        self._numbers = count()
        self.steps = 0
        self._of_the_dead: list[asyncio.Handle] = []
        self.is_burying = False  # the dead go on, so that they come to their ends
        self.tasks: list[asyncio.Task[Any]] = []
        NumberedTask._numbers = count()
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]

    def _make_task(
        self,
        _loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any],
        context: Context | None = None,
        **named: Any,  # from Python 3.14 on
    ) -> asyncio.Task[Any]:
        task = NumberedTask(coroutine, loop=self, context=context, **named)
        self.tasks.append(task)
        return task

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self._now

    # What follows is asyncio's, without its checks, and with plain handles for timers: a life is some thousand of each.

    def call_soon(  # type: ignore[override] # of any arguments
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Have it run at some time that is now."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override] # of any arguments
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        """Have it run at this virtual time."""
        handle = asyncio.Handle(callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_later(  # type: ignore[override] # of any arguments
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        """Have it run after so many virtual seconds."""
        handle = asyncio.Handle(callback, args, self, context)
        heappush(self._timers, (self._now + delay, next(self._numbers), handle))
        return handle

    def _run_once(self) -> None:
        ready, timers, draw = self._ready, self._timers, self._draw
        while not self._stopping:  # type: ignore[attr-defined]
            while timers and (timers[0][2]._cancelled or timers[0][0] <= self._now):
                handle = heappop(timers)[2]
                if not handle._cancelled:
                    ready.append(handle)
            if not ready:
                if not timers:
                    raise StuckError("nothing is ready, and nothing will be")
                self._now = timers[0][0]
                continue
            at = int(draw() * len(ready))
            handle = ready[at]
            ready[at] = ready[-1]
            ready.pop()
            if not handle._cancelled:
                self._run(handle)

    def _run(self, handle: asyncio.Handle) -> None:
        owner = handle._context.get(OWNER)  # type: ignore[attr-defined]
        if owner is not None and owner.is_dead and not self.is_burying:
            self._of_the_dead.append(handle)
            return
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise StuckError(f"{STEPS_MAX} steps, and no end at {self._now:g} s")
        handle._run()

    def bury(self) -> None:
        """Cancel every task, of the living and the dead, and let all of them end."""
        self.is_burying = True
        self.steps = 0
        self._ready.extend(self._of_the_dead)
        self._of_the_dead.clear()
        rounds = 0
        while left := [task for task in self.tasks if not task.done()]:
            rounds += 1
            if rounds > BURIAL_ROUNDS_MAX:
                raise StuckError(f"these do not end when they are cancelled: {left}")
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=1))
        self.tasks.clear()
        self.close()

    def _process_events(self, _events: object) -> None: ...

    def _write_to_self(self) -> None: ...
