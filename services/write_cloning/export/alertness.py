"""Staying awake for what is likely to come at once. Hot.

A loop that has nothing to do sleeps, and to be woken takes tens of microseconds in a virtual machine. A client that has few
requests under way waits for two such awakenings with each: when the device is done, and when its next request comes. So after
a request and after its answer the loop does not sleep but looks again, for a short time, giving way to whoever else wants
the processor (QEMU's I/O threads do the like, `poll-max-ns`).

Looking in vain costs processor time and brings nothing: after it has been in vain some are not tried, so that a client that
sends a request now and then costs hardly more than it would otherwise. Where many requests are under way something comes
anyway, and the devices' work needs the processor more.
"""

import os
import time
from collections.abc import Callable
from typing import Protocol

AWAKE_S = 100e-6
"""For how long. A write into the page cache takes less, and so does a client from an answer to its next request."""

UNTRIED_AFTER_A_MISS = 16

FEW = 4
"""Up to so many requests under way are few."""


class Loop(Protocol):
    """What is needed of an event loop."""

    def call_soon(self, callback: Callable[[], None], /) -> object:
        """Call it in the next iteration, which does not sleep before."""


class Alertness:
    """That of one loop, shared by all its connections."""

    __slots__ = ("_call_soon", "_is_awake", "_look_again_callback", "_now", "_until", "_untried")

    def __init__(self, loop: Loop, now: Callable[[], float] = time.monotonic) -> None:
        """`now` in seconds."""
        self._call_soon = loop.call_soon
        self._now = now
        self._look_again_callback = self._look_again
        self._is_awake = False
        self._until = 0.0
        self._untried = 0

    def expect(self, under_way: int) -> None:
        """Something is likely to come at once, from a client with so many requests under way."""
        if under_way > FEW:
            return
        if not self._is_awake:
            if self._untried:
                self._untried -= 1
                return
            self._is_awake = True
            self._call_soon(self._look_again_callback)
        self._until = self._now() + AWAKE_S

    def _look_again(self) -> None:
        if self._now() < self._until:
            os.sched_yield()
            self._call_soon(self._look_again_callback)
        else:
            self._is_awake = False
            self._untried = UNTRIED_AFTER_A_MISS
