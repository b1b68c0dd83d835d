"""What the data path asks of a device, and nothing more.

Every device (file, block device, remote export, and the faulty or recording ones of the tests) offers this one small
interface, so that they stack. The style is callbacks, because a future or a task for each request would cost more than
the request: `done(context, error)` is called once for each request, with 0 or a positive errno, always later from the
event loop and never from inside the call that started the request. The buffer stays the device's until then.

This file must not know how a device does its work, nor what a volume or a migration is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from services.write_cloning.devices.buffers import Buffer
from shared.migration.devices import DeviceIdentity

Done = Callable[[Any, int], None]
"""Takes the context that the request was started with, and 0 or a positive errno."""

WentOn = Callable[[Any], None]
"""Takes that context, when one of several instalments of the request is done."""


def nobody_asks(_context: object) -> None:
    """Whoever started the request does not want to know how it goes on."""


class ZeroMode(Enum):
    """How a range may be made to read as zeroes."""

    PUNCH = "punch"  # storage may be given back: a hole where the device can
    ALLOCATE = "allocate"  # storage stays reserved (NBD's NO_HOLE)


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes that is all data or all hole; a hole reads as zeroes."""

    offset: int
    length: int
    is_hole: bool


class Write(Protocol):
    """A write, for whoever has many of them."""

    offset: int
    length: int
    buffer: Buffer | None  # some
    start: int


class Device(Protocol):
    """One open device. Offsets and lengths are bytes; `alignment_bytes` must divide them and every buffer address."""

    @property
    def identity(self) -> DeviceIdentity:
        """What the device was when it was opened."""

    @property
    def size_bytes(self) -> int:
        """The device's size, fixed while it is open."""

    @property
    def alignment_bytes(self) -> int:
        """1 when any offset will do; the logical block size under direct I/O. A power of two."""

    @property
    def engine_name(self) -> str:
        """How I/O is done, for people: `io_uring`, `io_uring direct`, `threads`."""

    @property
    def outstanding(self) -> int:
        """Requests that were started and are not done; their buffers are pinned."""

    @property
    def can_zero_fast(self) -> bool:
        """Whether `zero` is known not to fall back to writing zeroes."""

    @property
    def flush_error(self) -> int:
        """The errno of the flush that has failed, be it a durable write's; 0 while none has."""

    def read(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object, /
    ) -> None:
        """Read `length` bytes at `offset` into `buffer` from its byte `start` on."""

    def read_at_once(self, offset: int, into: memoryview) -> bool:
        """Fill `into` if that needs no waiting, as for bytes in the page cache; False: it may hold anything, use `read`."""

    def write(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object, /
    ) -> None:
        """Write `length` bytes at `offset` out of `buffer` from its byte `start` on."""

    def write_all(self, writes: Sequence[Write], done: Done, /) -> None:
        """Like `write` of each, in this order, each its own context. Costs less."""

    def write_durably(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object, /
    ) -> None:
        """Write; the bytes are on stable storage when `done` says 0 (FUA)."""

    def zero(
        self,
        offset: int,
        length: int,
        mode: ZeroMode,
        durable: bool,
        done: Done,
        context: object,
        went_on: WentOn = nobody_asks,
    ) -> None:
        """Make the range read as zeroes, by the cheapest way that the device has; writes zeroes where it has none.

        That may take many instalments, however prompt the device is: `went_on(context)` is called after each.
        """

    def flush(self, done: Done, context: object) -> None:
        """Make every write that was done before this call durable. A failure is final and is never retried."""

    def prefetch(self, offset: int, length: int, done: Done, context: object) -> None:
        """Advise that the range is read soon; succeeds where the device knows no such thing."""

    async def extents(self, offset: int, length: int, most: int | None = None) -> Sequence[Extent]:
        """Data and holes of the range, in order and without gaps; all data where the device cannot tell.

        With `most`, no more than so many, found in a time to match: they may end before the range does.

        Raises:
            OSError: the device could not be asked.
        """

    async def close(self) -> None:
        """Wait for outstanding requests, then release the device and its lock."""


class Unfenced(ABC):
    """A device that no lock of the kernel fences: what it was asked may land after it was closed (`remote` says how).

    Which devices are so is asked with `isinstance`; so they say it by inheriting, and none is by having names like these.
    """

    @property
    @abstractmethod
    def outstanding(self) -> int:
        """As of every device; after it was closed, the requests that may still land."""

    @property
    @abstractmethod
    def is_broken(self) -> bool:
        """Whether it can do nothing any more, and has to be opened anew."""

    def belong_to(self, migration: str) -> None:  # noqa: B027 - whoever logs nothing needs no name
        """Learn which migration it serves, for its lines in the log."""

    @abstractmethod
    def vouch_gone(self) -> None:
        """Take somebody's word that nothing that it was asked can land any more."""
