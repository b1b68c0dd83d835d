"""A remote NBD export as a device.

What a connection does not know is here: pieces of what exceeds the server's payload limit, durability, zeroes by the cheapest
way that the server has, extents. How an export is found and what it must offer is `remote_opening`'s business.

**No lock, no fence.** A local device is locked, and the kernel gives the lock up only when the last request is done, so that
nothing of an earlier run or attempt can land on a device that is used again (rule R6). A server keeps no such lock. While a
connection stands, its replies tell what is done: it is closed only when nothing is outstanding. But when it breaks, or when
this process ends without closing it, requests may stay behind: in the network, in the server's queue, in a server that is
stopped and goes on tomorrow. They can land long after a new connection has written newer data, and nothing that a client can
ask would tell. So:

- a broken connection is a failed device; it is never made again, and nothing is sent again;
- requests that were under way and change the device stay `outstanding` until an operator vouches that the old connection is
  gone (`vouch_gone`), as they know who have restarted the server, or seen that it has dropped the connection;
- a device of which an earlier run may have left requests behind is not used before that word either; the host's witness says
  of which (`Witness.unfenced`).

A server without flush is refused: what it has acknowledged can never be known to be durable.
"""

import asyncio
import errno
from collections.abc import Callable, Sequence
from functools import partial

from services.write_cloning.devices.buffers import ZEROES, ZEROES_BYTES, Buffer
from services.write_cloning.devices.interface import (
    Done,
    Extent,
    Unfenced,
    WentOn,
    Write,
    ZeroMode,
    nobody_asks,
)
from services.write_cloning.devices.one_by_one import write_one_by_one
from services.write_cloning.devices.remote_connection import ExtentsFound, RemoteConnection
from services.write_cloning.devices.syncs import Syncs
from shared.migration.devices import DeviceIdentity
from shared.nbd.constants import (
    ALLOCATION_CONTEXT,
    AllocationStatus,
    Command,
    CommandFlag,
    TransmissionFlag,
)
from shared.nbd.exports import Agreement

LONGEST_BYTES = 1 << 30
"""Of one request without a payload: what fits the protocol's 32 bits, in whole blocks of any size."""

SLOW_ZEROES_BYTES = 64 << 20
"""Of one request for zeroes that the server may have to write: so long that it costs no time, and seen to go on."""

QUESTIONS_MAX = 4096
"""An export in more pieces than so many answers tell of is said to be data from there on."""

# Not ENOSPC: servers make a durable write of a write and a flush, and the flush, too, says so where the storage below is full.
_SAYS_NOTHING_OF_EARLIER_WRITES = frozenset({errno.EINVAL, errno.EPERM})
_PLAIN, _FAST = 0, int(CommandFlag.FAST_ZERO)
_FUA, _NO_HOLE = int(CommandFlag.FUA), int(CommandFlag.NO_HOLE)


class RemoteDevice(Unfenced):
    """See `interface.Device`. Belongs to the loop that it was made in."""

    __slots__ = (
        "_agreement",
        "_ask",
        "_connection",
        "_context_id",
        "_fua",
        "_let_go",
        "_loop",
        "_most",
        "_syncs",
        "_zero_ways",
        "alignment_bytes",
        "engine_name",
        "identity",
        "size_bytes",
    )

    def __init__(
        self,
        connection: RemoteConnection,
        agreement: Agreement,
        identity: DeviceIdentity,
        *,
        alignment_bytes: int,
        let_go: Callable[[], None],
    ) -> None:
        """Take over a connection. `let_go` is called once nothing of this device can land any more."""
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._ask = connection.ask
        self._agreement = agreement
        self._let_go: Callable[[], None] | None = let_go
        self._most = agreement.max_payload_bytes // alignment_bytes * alignment_bytes
        self._fua = _FUA if TransmissionFlag.SEND_FUA in agreement.flags else 0
        self._syncs = Syncs(self._loop, self._start_flush)
        self._zero_ways = _zero_ways(agreement.flags)
        self._context_id = next(
            (number for number, name in agreement.contexts.items() if name == ALLOCATION_CONTEXT), None
        )
        self.identity = identity
        self.size_bytes = identity.size_bytes
        self.alignment_bytes = alignment_bytes
        self.engine_name = "nbd"

    def is_recorded_as(self, recorded: DeviceIdentity) -> bool:
        """Whether it is the export that was recorded."""
        return self.identity.is_same_device(recorded)

    @property
    def outstanding(self) -> int:
        """Requests that are not answered, and those of a broken connection that may still land."""
        return self._connection.in_flight + self._syncs.waiting + self._connection.lost

    @property
    def is_broken(self) -> bool:
        """Whether the connection is gone, and with it the device for as long as this object stands for it."""
        return self._connection.error != 0

    def belong_to(self, migration: str) -> None:
        """Learn which migration it serves, for its lines in the log."""
        self._connection.migration = migration

    @property
    def flush_error(self) -> int:
        """Of the flush that has failed, since when none is believed."""
        return self._syncs.error

    @property
    def can_zero_fast(self) -> bool:
        """Whether the server has offered fast zeroes, and has not refused one."""
        return _FAST in self._zero_ways

    def read(self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object) -> None:
        """Read into `buffer`."""
        if length > self._most:
            self._ask_in_pieces(Command.READ, 0, offset, buffer, start, length, done, context)
        else:
            self._ask(Command.READ, 0, offset, length, buffer, start, done, context)

    def read_at_once(self, offset: int, into: memoryview) -> bool:
        """Nothing remote is at hand."""
        del offset, into
        return False

    def write(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object
    ) -> None:
        """Write out of `buffer`."""
        if length > self._most:
            self._ask_in_pieces(Command.WRITE, 0, offset, buffer, start, length, done, context)
        else:
            self._ask(Command.WRITE, 0, offset, length, buffer, start, done, context)

    def write_all(self, writes: Sequence[Write], done: Done) -> None:
        """Write each, in this order."""
        write_one_by_one(self.write, writes, done)

    def write_durably(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object
    ) -> None:
        """Write with FUA where the server has it, else write and flush."""
        if self._syncs.error:
            self._syncs.refuse(done, context)
        elif self._fua:
            then, asked = self._done_durably, (done, context, self._syncs.begin())
            self._ask_in_pieces(Command.WRITE, _FUA, offset, buffer, start, length, then, asked)
        else:
            self.write(offset, buffer, start, length, self._flush_after, (done, context))

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
        """Make a range read as zeroes. Never by TRIM, which leaves behind what it likes."""
        told = partial(went_on, context)
        if durable:
            done, context = self._flush_after, (done, context)
        flags = _NO_HOLE if mode is ZeroMode.ALLOCATE else 0
        _ZeroRequest(self, offset, length, flags, done, context, told).go_on(0)

    def flush(self, done: Done, context: object) -> None:
        """Make durable what was done before this call; after a failure, every flush fails."""
        self._syncs.request(done, context)

    def prefetch(self, offset: int, length: int, done: Done, context: object) -> None:
        """Pass the advice on to a server that takes any."""
        if TransmissionFlag.SEND_CACHE in self._agreement.flags:
            self._ask(Command.CACHE, 0, offset, min(length, LONGEST_BYTES), None, 0, done, context)
        else:
            self._loop.call_soon(done, context, 0)

    async def extents(self, offset: int, length: int, most: int | None = None) -> Sequence[Extent]:
        """Data and holes as the server tells them; all data where it does not."""
        end = offset + length
        found: list[Extent] = []
        for _ in range(QUESTIONS_MAX):
            told = await self._told_extents(offset, min(end - offset, LONGEST_BYTES))
            if not told:
                break
            for extent_length, flags in told:
                taken = min(extent_length, end - offset)
                if taken:
                    _append(found, Extent(offset, taken, is_hole=bool(flags & AllocationStatus.ZERO)))
                    offset += taken
            if offset == end or (most is not None and len(found) >= most):
                break
        if offset < end and (most is None or not found):
            _append(found, Extent(offset, end - offset, is_hole=False))
        return found if most is None else found[:most]

    def vouch_gone(self) -> None:
        """Somebody knows that the old connection is gone at the server: sever it here if need be, and forget what was lost."""
        self._connection.sever(errno.ECONNABORTED, "it is given up: the operator says that it is gone")
        self._connection.forget_lost()
        self._give_up_claim()

    async def close(self) -> None:
        """Wait for outstanding replies, then disconnect. What was lost stays `outstanding`."""
        await self._connection.close()
        if not self._connection.lost:
            self._give_up_claim()

    def _give_up_claim(self) -> None:
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()

    # ------------------------------------------------------------------ pieces

    def _ask_in_pieces(
        self,
        command: Command,
        flags: int,
        offset: int,
        buffer: Buffer,
        start: int,
        length: int,
        done: Done,
        context: object,
    ) -> None:
        most = self._most
        pieces = _Pieces(-(-length // most), done, context)
        for at in range(0, length, most):
            piece = min(most, length - at)
            self._ask(command, flags, offset + at, piece, buffer, start + at, pieces.done_one, None)

    # ------------------------------------------------------------------ durability

    def _start_flush(self, done: Done, context: object) -> None:
        self._ask(Command.FLUSH, 0, 0, 0, None, 0, done, context)

    def _flush_after(self, asked: tuple[Done, object], error: int) -> None:
        done, context = asked
        if error:
            done(context, error)
        else:
            self._syncs.request(done, context)

    def _done_durably(self, asked: tuple[Done, object, int], error: int) -> None:
        done, context, sync = asked
        # Perhaps it was the server's flush that failed, and the next would not.
        self._syncs.end(sync, 0 if error in _SAYS_NOTHING_OF_EARLIER_WRITES else error)
        if error:
            done(context, error)
        else:
            self._syncs.believe(done, context)  # the server may have had it in a cache

    # ------------------------------------------------------------------ zeroes

    def zero_way(self) -> int | None:
        """The flag of the cheapest command for zeroes that was not refused yet; None when they must be written."""
        return self._zero_ways[0] if self._zero_ways else None

    def ask_for_zeroes(self, flags: int, offset: int, length: int, done: Done, context: object) -> None:
        """Send one command for zeroes."""
        self._ask(Command.WRITE_ZEROES, flags, offset, length, None, 0, done, context)

    def zero_way_refused(self, way: int) -> None:
        """Try a way no more."""
        if way in self._zero_ways:
            self._zero_ways.remove(way)

    @property
    def most_zeroes_written(self) -> int:
        """How many zeroes one write takes."""
        return min(ZEROES_BYTES, self._most)

    # ------------------------------------------------------------------ extents

    async def _told_extents(self, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """What the server says of a range, or of its beginning; empty where it does not say.

        Raises:
            OSError: the connection is broken.
        """
        if self._context_id is None:
            return ()
        answered: asyncio.Future[int] = self._loop.create_future()
        found: ExtentsFound = []

        def done(_context: object, error: int) -> None:
            if not answered.done():
                answered.set_result(error)

        self._ask(Command.BLOCK_STATUS, 0, offset, length, None, 0, done, found)
        error = await answered
        if self._connection.error:
            raise OSError(self._connection.error, "the connection is broken")
        if error:
            return ()
        return next((each.extents for each in found if each.context_id == self._context_id), ())


class _Pieces:
    """One request in several; its error is the first of theirs."""

    __slots__ = ("_context", "_done", "_error", "_left")

    def __init__(self, count: int, done: Done, context: object) -> None:
        self._left = count
        self._done = done
        self._context = context
        self._error = 0

    def done_one(self, _context: object, error: int) -> None:
        self._error = self._error or error
        self._left -= 1
        if not self._left:
            self._done(self._context, self._error)


class _ZeroRequest:
    """One range on its way: each finished step starts the next."""

    __slots__ = ("_context", "_device", "_done", "_flags", "_left", "_offset", "_went_on")

    def __init__(
        self,
        device: RemoteDevice,
        offset: int,
        length: int,
        flags: int,
        done: Done,
        context: object,
        went_on: Callable[[], None],
    ) -> None:
        self._device = device
        self._offset = offset
        self._left = length
        self._flags = flags
        self._done = done
        self._context = context
        self._went_on = went_on

    def go_on(self, piece: int) -> None:
        """Start the next step, after `piece` more bytes are zeroes."""
        self._offset += piece
        self._left -= piece
        device, way = self._device, self._device.zero_way()
        if not self._left:
            self._done(self._context, 0)
        elif way is not None:
            length = min(self._left, LONGEST_BYTES if way == _FAST else SLOW_ZEROES_BYTES)
            device.ask_for_zeroes(self._flags | way, self._offset, length, self._tried, (way, length))
        else:
            length = min(self._left, device.most_zeroes_written)
            device.write(self._offset, ZEROES, 0, length, self._written, length)

    def _tried(self, asked: tuple[int, int], error: int) -> None:
        way, length = asked
        if error == errno.EOPNOTSUPP:
            self._device.zero_way_refused(way)
            self.go_on(0)
        else:
            self._written(length, error)

    def _written(self, length: int, error: int) -> None:
        if error:
            self._done(self._context, error)
        else:
            self._went_on()
            self.go_on(length)


def _zero_ways(flags: TransmissionFlag) -> list[int]:
    """The commands for zeroes, the cheapest first: one that must not be slow, and one that may be."""
    if TransmissionFlag.SEND_WRITE_ZEROES not in flags:
        return []
    return [_FAST, _PLAIN] if TransmissionFlag.SEND_FAST_ZERO in flags else [_PLAIN]


def _append(extents: list[Extent], extent: Extent) -> None:
    if extents and extents[-1].is_hole == extent.is_hole:
        last = extents.pop()
        extent = Extent(last.offset, last.length + extent.length, is_hole=extent.is_hole)
    extents.append(extent)
