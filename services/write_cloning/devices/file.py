"""A regular file or block device, over an engine.

`read`, `write` and `write_all` are the engine's own. Everything else is here: going on with
short transfers, durability, flushes that are final, zeroes, extents. What a path is, who may open it, and
its lock are `opening`'s business; this file gets an open descriptor and closes it. It must not know volumes
or migrations.
"""

import asyncio
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from services.write_cloning.devices import syscalls
from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.clerk import Clerk
from services.write_cloning.devices.engine import Engine, Operation
from services.write_cloning.devices.extents import find_extents
from services.write_cloning.devices.identity import Found
from services.write_cloning.devices.interface import Done, Extent, WentOn, ZeroMode, nobody_asks
from services.write_cloning.devices.syncs import Syncs
from services.write_cloning.devices.zeroing import Zeroing
from shared.migration.devices import DeviceIdentity

INTERRUPTIONS_MAX = 8
"""How often one request is started again after EINTR or EAGAIN."""

READS_UNTRIED_AFTER_A_MISS = 15
"""So that where nothing is in the cache a try is made for one read in sixteen."""

_ADVICE_LENGTH_MAX = 0x7FFFF000
_SAYS_NOTHING_OF_EARLIER_WRITES = frozenset(
    {errno.EDQUOT, errno.EFBIG, errno.EINVAL, errno.ENOSPC, errno.EPERM}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """An open, locked descriptor, and what was found out about it."""

    fd: int
    seeking_fd: int  # of its own position, for extents; -1 where every byte is data
    found: Found
    real_path: str
    alignment_bytes: int
    is_direct: bool
    is_hashed: bool  # see `Engine.open_lane`
    can_punch: bool
    can_zero_range_fast: bool

    def close(self) -> None:
        """Close, which gives up the lock. May block, for as long as the kernel flushes a block device."""
        if self.seeking_fd >= 0:
            os.close(self.seeking_fd)
        os.close(self.fd)


class FileDevice:
    """See `interface.Device`. Belongs to the loop that it was made in."""

    __slots__ = (
        "_clerk",
        "_fd",
        "_is_closed",
        "_is_direct",
        "_lane",
        "_loop",
        "_open",
        "_reads_untried",
        "_syncs",
        "_zeroing",
        "alignment_bytes",
        "engine_name",
        "identity",
        "read",
        "size_bytes",
        "write",
        "write_all",
    )

    def __init__(self, open_file: OpenFile, engine: Engine) -> None:
        """Take over an open file.

        Raises:
            EngineFullError: the engine has no lane left; the file is still the caller's.
        """
        self._loop = asyncio.get_running_loop()
        self._open = open_file
        self._fd = open_file.fd
        self._reads_untried = 0
        self._is_direct = open_file.is_direct
        self._lane = engine.open_lane(open_file.fd, self._finish_oddly, is_hashed=open_file.is_hashed)
        self.read = self._lane.read  # nothing is added to what the engine does, so no call either
        self.write = self._lane.write
        self.write_all = self._lane.write_all
        self._syncs = Syncs(self._loop, self._start_flush)
        self._zeroing = Zeroing(
            self._lane,
            self._syncs,
            can_punch=open_file.can_punch,
            can_zero_range_fast=open_file.can_zero_range_fast,
        )
        self._clerk = Clerk(f"extents-{open_file.fd}")
        self._is_closed = False
        self.identity = open_file.found.identity
        self.size_bytes = self.identity.size_bytes
        self.alignment_bytes = open_file.alignment_bytes
        self.engine_name = f"{engine.name} direct" if open_file.is_direct else engine.name

    @property
    def outstanding(self) -> int:
        """Requests that were started and are not done; their buffers are pinned."""
        return self._lane.outstanding + self._syncs.waiting

    @property
    def can_zero_fast(self) -> bool:
        """Whether `zero` is not known to write zeroes."""
        return self._zeroing.is_fast

    @property
    def flush_error(self) -> int:
        """Of the flush that has failed, since when none is believed."""
        return self._syncs.error

    @property
    def fd(self) -> int:
        """The open descriptor, for whoever inspects what is on the device. It stays the device's."""
        return self._open.fd

    def is_recorded_as(self, recorded: DeviceIdentity) -> bool:
        """Whether it is the device that was recorded, by this version or an earlier one."""
        return self._open.found.is_recorded_as(recorded)

    @property
    def real_path(self) -> str:
        """The path of the open descriptor, with every symbolic link followed."""
        return self._open.real_path

    def read_at_once(self, offset: int, into: memoryview) -> bool:
        """Read from the page cache. After a miss some reads are not tried: a failed try costs, and misses come in droves."""
        if self._reads_untried:
            self._reads_untried -= 1
            return False
        if not self._is_direct:
            try:
                if os.preadv(self._fd, (into,), offset, os.RWF_NOWAIT) == len(into):
                    return True
            except OSError:  # EAGAIN: it is not in the cache. Whatever else it is, `read` will say.
                pass
        self._reads_untried = READS_UNTRIED_AFTER_A_MISS
        return False

    def write_durably(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object
    ) -> None:
        """Write, and have it on stable storage."""
        if self._syncs.error:
            self._syncs.refuse(done, context)
        elif self._is_direct:
            address = buffer.address + start
            written, asked = self._written_through, (done, context, self._syncs.begin())
            self._lane.submit(Operation.WRITE, offset, address, length, syscalls.RWF_DSYNC, written, asked)
        else:
            # Not RWF_DSYNC: the kernel does a buffered file's writes one at a time, so each would wait for
            # the sync of the one before. A sync of its own is shared by all that wait for one.
            self.write(offset, buffer, start, length, self._written_to_cache, (done, context))

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
        """Make a range read as zeroes."""
        self._zeroing.zero(offset, length, mode, durable, done, context, went_on)

    def flush(self, done: Done, context: object) -> None:
        """Make durable what was done before this call; after a failure, every flush fails."""
        self._syncs.request(done, context)

    def prefetch(self, offset: int, length: int, done: Done, context: object) -> None:
        """Have the range read into the page cache; nothing to do where reads pass it by."""
        if self._is_direct:
            self._loop.call_soon(done, context, 0)
            return
        length = min(length, _ADVICE_LENGTH_MAX)
        self._lane.submit(Operation.ADVISE, offset, 0, length, syscalls.FADV_WILLNEED, done, context)

    async def extents(self, offset: int, length: int, most: int | None = None) -> Sequence[Extent]:
        """Data and holes of a file; a block device is all data."""
        seeking_fd = self._open.seeking_fd
        if seeking_fd < 0:
            return [Extent(offset, length, is_hole=False)]
        return await self._clerk.call(lambda: find_extents(seeking_fd, offset, length, most))

    async def close(self) -> None:
        """Wait for outstanding requests, then close the descriptor, which releases the lock."""
        await self._lane.close()
        if not self._is_closed:
            self._is_closed = True
            await self._clerk.call(self._open.close)
            self._clerk.dismiss()

    def _start_flush(self, done: Done, context: object) -> None:
        self._lane.submit(Operation.SYNC, 0, 0, 0, 0, done, context)

    def _written_to_cache(self, asked: tuple[Done, object], error: int) -> None:
        done, context = asked
        if error:
            done(context, error)
        else:
            self._syncs.request(done, context)

    def _written_through(self, asked: tuple[Done, object, int], error: int) -> None:
        done, context, sync = asked
        # Perhaps it was the cache's flush that failed, and the next would not. This write went past the cache, so nobody else was
        # told that it is lost.
        self._syncs.end(sync, 0 if error in _SAYS_NOTHING_OF_EARLIER_WRITES else error)
        done(context, error)

    # ------------------------------------------------------------------ what is not plain success

    def _finish_oddly(
        self,
        operation: Operation,
        offset: int,
        address: int,
        length: int,
        flags: int,
        result: int,
        done: Done,
        context: object,
    ) -> None:
        """Go on with a request that was interrupted or done in part, or answer its error."""
        if result in {-errno.EINTR, -errno.EAGAIN} and not _flushes(operation, flags):
            retry = context if isinstance(context, _Interrupted) else _Interrupted(done, context)
            if retry.may_go_on():
                self._lane.submit(operation, offset, address, length, flags, _Interrupted.finish, retry)
            else:
                retry.finish(errno.EIO)
            return
        if result < 0:
            done(context, -result)
            return
        moved = result & ~(self.alignment_bytes - 1) if self._is_direct else result
        if not 0 < moved < length:
            # Nothing moved: a read at the end of a file that has shrunk, or a write that the device has no
            # room for.
            done(context, errno.EIO)
            return
        self._lane.submit(operation, offset + moved, address + moved, length - moved, flags, done, context)


def _flushes(operation: Operation, flags: int) -> bool:
    """Whether a request brings out that earlier writes were lost: once, so that the answer to a second one proves nothing.

    What was interrupted may have come that far. What never began is not told from it, so it counts as a flush that has failed.
    """
    return operation is Operation.SYNC or (operation is Operation.WRITE and bool(flags & syscalls.RWF_DSYNC))


class _Interrupted:
    """A request that is started again, and how often it was."""

    __slots__ = ("_context", "_done", "_times")

    def __init__(self, done: Done, context: object) -> None:
        self._done = done
        self._context = context
        self._times = 0

    def may_go_on(self) -> bool:
        self._times += 1
        return self._times <= INTERRUPTIONS_MAX

    def finish(self, error: int) -> None:
        self._done(self._context, error)
