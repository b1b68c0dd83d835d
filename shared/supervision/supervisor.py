"""Whether this process is ready, what it is about, and whether something stands against it: told to whoever supervises it.

A process has one supervisor, as it has one log, and it is found in the environment: so there is one object, `supervisor`,
and nobody has to be handed it. Until `supervising` begins it only remembers.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path

from shared.supervision.health_socket import Health, health_socket
from shared.supervision.notify import Notifier, take_notifier, take_watchdog_interval_s

HEALTH_SOCKET_VARIABLE = "CUTOVER_HEALTH_SOCKET"

Doubt = Callable[[], str | None]
"""What stands against a process that has said it is ready, as a sentence; None when nothing does."""


class Supervisor:
    """What is known of this process, and who is told."""

    def __init__(self) -> None:
        """It has only begun."""
        self._notifier = Notifier()
        self._is_ready = False
        self._is_stopping = False
        self._sentence = "It is starting."
        self._doubt: Doubt = _no_doubt

    def ready(self, sentence: str, *, unless: Doubt | None = None) -> None:
        """The process does what it is for. `unless` is asked again whenever someone asks for its health."""
        if self._is_stopping:
            return  # the stop came before it was
        self._is_ready, self._sentence, self._doubt = True, sentence, unless or _no_doubt
        self._notifier.send("READY=1", f"STATUS={sentence}")

    def status(self, sentence: str) -> None:
        """What it is about, or waits for."""
        self._sentence = sentence
        self._notifier.send(f"STATUS={sentence}")

    def stopping(self, sentence: str) -> None:
        """An orderly stop has begun: nothing more is to be asked of it."""
        self._is_ready, self._is_stopping, self._sentence = False, True, sentence
        self._notifier.send("STOPPING=1", f"STATUS={sentence}")

    def health(self) -> Health:
        """How it is right now."""
        if not self._is_ready:
            return Health(is_ok=False, sentence=self._sentence)
        doubt = self._doubt()
        return Health(is_ok=doubt is None, sentence=doubt or self._sentence)

    @asynccontextmanager
    async def supervising(self, environment: MutableMapping[str, str]) -> AsyncIterator[None]:
        """Tell whoever the environment names, and answer where it says, for as long as the context is open."""
        self._notifier = take_notifier(environment)
        interval_s = take_watchdog_interval_s(environment, os.getpid())
        place = environment.pop(HEALTH_SOCKET_VARIABLE, "")
        beating = _Beating(self._notifier, interval_s) if interval_s else None
        try:
            async with health_socket(Path(place) if place else None, self.health):
                yield
        finally:
            if beating is not None:
                beating.stop()


class _Beating:
    """The watchdog's signs of life. They come from the loop: when it hangs, so do they."""

    def __init__(self, notifier: Notifier, interval_s: float) -> None:
        self._notifier = notifier
        self._interval_s = interval_s
        self._beat()

    def _beat(self) -> None:
        self._notifier.send("WATCHDOG=1")
        self._next = asyncio.get_running_loop().call_later(self._interval_s, self._beat)

    def stop(self) -> None:
        """No more of them."""
        self._next.cancel()


def _no_doubt() -> None:
    return None


supervisor = Supervisor()
"""Of this process."""
