"""What a device asks of whatever brings its requests to the kernel: an *engine*, and in it a *lane* of its own.

There are two: `ring` (io_uring) and `threads`, which serves where io_uring is not allowed. Lanes keep
devices apart: each has a bound on what the kernel holds for it, and what exceeds the bound waits in the
lane, so that a device that hangs takes nothing from the others.

An engine belongs to one event loop, and is used from it alone. It must not know what a device is for.
"""

import asyncio
from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.interface import Done, Write

LANE_DEPTH = 128
"""How many requests of one device the kernel holds at most. Enough to keep any disk busy; few enough that a ring of
8,192 entries has room for 64 devices that are all frozen with a full lane."""


class Operation(IntEnum):
    """What a lane was asked for; io_uring's own numbers, since one of the engines has to translate anyway."""

    SYNC = 3
    ALLOCATE = 17
    READ = 22
    WRITE = 23
    ADVISE = 24


TRANSFERS = frozenset({Operation.READ, Operation.WRITE})
"""Operations whose result is a count of bytes; that of the others is 0."""


class Odd(Protocol):
    """Takes requests whose result was neither success nor all of the bytes, and goes on with them or answers."""

    def __call__(
        self,
        operation: Operation,
        offset: int,
        address: int,
        length: int,
        flags: int,
        result: int,
        done: Done,
        context: object,
        /,
    ) -> None:
        """`result` is a short count or a negated errno; the rest is what `Lane.submit` was given."""


class Lane(Protocol):
    """One open descriptor's way to the kernel. Every `done` comes later, from the loop."""

    @property
    def outstanding(self) -> int:
        """Requests that are not done, whether the kernel has them or they still wait."""

    def read(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object, /
    ) -> None:
        """Read into `buffer` from its byte `start` on. The fast way of `submit`."""

    def write(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object, /
    ) -> None:
        """Write out of `buffer` from its byte `start` on. The fast way of `submit`."""

    def write_all(self, writes: Sequence[Write], done: Done, /) -> None:
        """Like `write` of each, in this order, each its own context."""

    def submit(
        self,
        operation: Operation,
        offset: int,
        address: int,
        length: int,
        flags: int,
        done: Done,
        context: object,
        /,
    ) -> None:
        """Do anything. `flags` are the RWF_ ones of WRITE, the mode of ALLOCATE, the advice of ADVISE; SYNC takes no range."""

    async def close(self) -> None:
        """Wait until nothing is outstanding, and give the lane up. The descriptor is its owner's to close."""


class Engine(Protocol):
    """Brings requests to the kernel without ever making the event loop wait."""

    @property
    def name(self) -> str:
        """For people, and for `query`: `io_uring` or `threads`."""

    @property
    def lanes_open(self) -> int:
        """Lanes that were not closed: of open devices, and of those that have not let go of their last request."""

    def open_lane(self, fd: int, odd: Odd, *, is_hashed: bool) -> Lane:
        """Give a descriptor a lane. `is_hashed`: the kernel may queue its writes with those of other files (`ring`).

        Raises:
            EngineFullError: as many lanes as there can be are open.
        """

    async def close(self) -> None:
        """Let go of everything.

        Raises:
            EngineMisuseError: a lane is still open.
        """


def answer(loop: asyncio.AbstractEventLoop, done: Done, context: object, error: int) -> None:
    """Call a `done`. What it raises is nobody's above us, and must not keep the others from being called."""
    try:
        done(context, error)
    except Exception as failure:  # noqa: BLE001 - handed on whole
        report(loop, failure)


def report(loop: asyncio.AbstractEventLoop, failure: Exception) -> None:
    """Hand an exception out of a `done` to the loop's handler."""
    loop.call_exception_handler(
        {"message": "the completion of a device request failed", "exception": failure}
    )
