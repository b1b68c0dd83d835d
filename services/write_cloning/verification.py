"""The verification: compares source and target, region by region, while the application keeps writing.

A region is compared under exclusion, as it is copied: writes to it that came before are done on both sides, those that come
meanwhile wait. Since every later write goes to both sides, a region that was equal once stays so for the attempt.

It changes no state. A difference is a fault of the target, and so is a target that does not answer, unless it is the source that
has lost something: a cache that could not write back tells of it when it is flushed, so the source is flushed before anyone is
blamed. What follows is the decision point's business, and so is ending a comparison that something else has overtaken.
"""

import asyncio
import errno
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence

from services.write_cloning.devices import transfers
from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.devices.comparing import BLOCK_BYTES, first_difference
from services.write_cloning.devices.interface import Device, Extent
from services.write_cloning.pace import Pace
from services.write_cloning.patience import patience
from services.write_cloning.surroundings import Limits
from services.write_cloning.throttle import Throttle
from services.write_cloning.volume.failures import TIMEOUT, Failure, FailureListener
from services.write_cloning.volume.room import take
from services.write_cloning.volume.volume import Volume
from shared.clock import Clock
from shared.messages.status import Outcome, VerificationView
from shared.migration.devices import Side

log = logging.getLogger(__name__)

REGIONS_IN_FLIGHT = 4
PIECE_BYTES = 1 << 20  # of each side, in one buffer


class _OverError(Exception):
    """Nothing more is to be compared; the outcome says why."""


class Verification:
    """One comparison. Its id is the operation id of the command that began it."""

    def __init__(
        self,
        *,
        verification_id: str,
        volume: Volume,
        listener: FailureListener,
        devices: Mapping[Side, Device],
        pool: BufferPool,
        limits: Limits,
        throttle: Throttle,
        clock: Clock,
    ) -> None:
        """Begin with nothing compared."""
        self.id = verification_id
        self.outcome: Outcome | None = None  # None: it is under way
        self.pace = Pace()
        self._volume = volume
        self._listener = listener
        self._devices = devices
        self._pool = pool
        self._region_size_bytes = limits.region_size_bytes
        self._piece_bytes = min(PIECE_BYTES, limits.region_size_bytes)
        self._throttle = throttle
        self._io_timeout_s = limits.io_timeout_s
        self._clock = clock
        self._region_count = -(-volume.size_bytes // limits.region_size_bytes)
        self._next_region = 0
        self._unreadable_count = 0
        self._first_unreadable = ""
        self._detail = ""
        self._began_at = clock.now_rfc3339()
        self._ended_at: str | None = None

    def conclude(self, outcome: Outcome, detail: str = "") -> None:
        """Say how it ended. The first word counts: what comes later is a consequence."""
        if self.outcome is None:
            self.outcome = outcome
            self._detail = detail
            self._ended_at = self._clock.now_rfc3339()

    def view(self) -> VerificationView:
        """How far it is, or how it ended."""
        remaining_bytes = self._volume.size_bytes - self.pace.done_bytes
        rate = self.pace.rate_bytes_per_s() if self.outcome is None else 0.0
        return VerificationView(
            id=self.id,
            outcome=self.outcome,
            detail=self._detail,
            compared_bytes=self.pace.done_bytes,
            remaining_bytes=remaining_bytes,
            rate_bytes_per_s=rate,
            eta_s=remaining_bytes / rate if rate else None,
            began_at=self._began_at,
            ended_at=self._ended_at,
        )

    async def run(self) -> bool:
        """Compare everything; returns whether all of it is equal. Anything else is in the outcome then."""
        try:
            async with asyncio.TaskGroup() as comparisons:
                for _ in range(REGIONS_IN_FLIGHT):
                    comparisons.create_task(self._compare_regions())
        except* _OverError:
            pass  # the outcome is said
        if self._unreadable_count:
            count = self._unreadable_count
            regions = "1 region was" if count == 1 else f"{count} regions were"
            detail = f"{regions} not compared, because the source could not be read: {self._first_unreadable}"
            self.conclude(Outcome.INCOMPLETE, detail)
        return self.outcome is None

    async def _compare_regions(self) -> None:
        while self._next_region < self._region_count:
            await self.pace.going()
            region, self._next_region = self._next_region, self._next_region + 1
            if region < self._region_count:
                await self._compare_region(region)

    async def _compare_region(self, region: int) -> None:
        low = region * self._region_size_bytes
        high = min(low + self._region_size_bytes, self._volume.size_bytes)
        await self._throttle.take(high - low)
        exclusion = await self._volume.exclude(low, high)
        try:
            read_bytes = await self._compare_excluded(low, high)
        finally:
            self._volume.include(exclusion)
        self._throttle.give_back(high - low - read_bytes)
        self.pace.add(high - low)

    async def _compare_excluded(self, low: int, high: int) -> int:
        """Compare what is data on either side; returns how much that is."""
        extents = await self._extents(Side.SOURCE, low, high - low)
        if any(extent.is_hole for extent in extents):
            extents = (*extents, *await self._extents(Side.TARGET, low, high - low))
        ranges = data_of_either(extents, self._volume.alignment_bytes, high)
        if not ranges:
            return 0
        # Like the copier: no memory while waiting for a place in the order.
        buffer = await take(self._pool, 2 * self._piece_bytes)
        try:
            for begin, end in ranges:
                for offset in range(begin, end, self._piece_bytes):
                    if not await self._is_equal(offset, min(self._piece_bytes, end - offset), buffer):
                        return high - low
        finally:
            buffer.release()
        return sum(end - begin for begin, end in ranges)

    async def _extents(self, side: Side, offset: int, length: int) -> Sequence[Extent]:
        # A hole is believed under exclusion only, where no write can fill it.
        try:
            async with patience(self._io_timeout_s):
                return await self._devices[side].extents(offset, length)
        except TimeoutError:
            self._unread(side, offset, length, errno.ETIMEDOUT, TIMEOUT)
            raise _OverError from None
        except OSError:
            return (Extent(offset, length, is_hole=False),)  # not being told is no fault: it is read instead

    async def _is_equal(self, offset: int, length: int, buffer: Buffer) -> bool:
        """Whether a piece is the same on both sides. False: the source could not be read; the comparison goes on elsewhere."""
        of_source, of_target = await asyncio.gather(
            self._read(Side.SOURCE, offset, buffer, 0, length),
            self._read(Side.TARGET, offset, buffer, self._piece_bytes, length),
        )
        for side, (error, cause) in ((Side.TARGET, of_target), (Side.SOURCE, of_source)):
            if error:
                self._unread(side, offset, length, error, cause)
                return False
        at = first_difference(buffer, 0, self._piece_bytes, length)
        if at is not None:
            await self._differ(offset + at, min(BLOCK_BYTES, length - at))
        return True

    async def _read(
        self, side: Side, offset: int, buffer: Buffer, start: int, length: int
    ) -> tuple[int, str]:
        return await self._done_in_time(
            transfers.read(self._devices[side], offset, buffer, length, start=start)
        )

    async def _done_in_time(self, transfer: Coroutine[object, object, int]) -> tuple[int, str]:
        try:
            async with patience(self._io_timeout_s):
                error = await transfer
        except TimeoutError:
            return errno.ETIMEDOUT, TIMEOUT
        return error, errno.errorcode.get(error, str(error))

    # ------------------------------------------------------------------ trouble

    async def _differ(self, offset: int, length: int) -> None:
        self._require_both()
        error, cause = await self._done_in_time(transfers.flush(self._devices[Side.SOURCE]))
        if error:
            self._require_both()
            lost = f"{length} bytes at {offset} differ, and the source, which may have lost writes, could not be flushed: {cause}"
            self.conclude(Outcome.INCOMPLETE, lost)
            if cause != TIMEOUT:  # else it may be slow, and has lost nothing
                self._volume.failover.source_failed(Failure.of_flush(Side.SOURCE, error))
            raise _OverError
        failure = Failure(side=Side.TARGET, operation="verify", cause="differs", offset=offset, length=length)
        self._fail_target(failure, Outcome.DIFFERENT, f"{length} bytes at {offset} differ")

    def _unread(self, side: Side, offset: int, length: int, error: int, cause: str) -> None:
        """A side could not be read. Returns where the comparison can go on elsewhere: a source that gave an error."""
        failure = Failure(side=side, operation="read", cause=cause, errno=error, offset=offset, length=length)
        where = f"{cause} at {offset}"
        if side is Side.TARGET:
            self._fail_target(failure, Outcome.INCOMPLETE, f"the target could not be read: {where}")
        self._require_both()
        self._listener.source_failed(failure)
        if cause == TIMEOUT:  # each region more would take as long, and hold writes meanwhile
            self.conclude(Outcome.INCOMPLETE, f"the source could not be read: {where}")
            raise _OverError
        self._unreadable_count += 1
        self._first_unreadable = self._first_unreadable or where

    def _fail_target(self, failure: Failure, outcome: Outcome, detail: str) -> None:
        self._require_both()
        self.conclude(outcome, detail)
        self._volume.failover.target_failed(failure)
        raise _OverError

    def _require_both(self) -> None:
        """A side that was dropped meanwhile misses writes: whatever it holds or fails says nothing any more."""
        if self._volume.sides_by_authority() != (Side.SOURCE, Side.TARGET):
            self.conclude(Outcome.INCOMPLETE, "a side left the routing meanwhile")
            raise _OverError


def data_of_either(extents: Iterable[Extent], alignment_bytes: int, end: int) -> Sequence[tuple[int, int]]:
    """The ranges that are data in any of these extents, in order, grown to whole blocks. Elsewhere there are zeroes."""
    mask = alignment_bytes - 1
    ranges: list[tuple[int, int]] = []
    for extent in sorted(extents, key=lambda extent: extent.offset):
        if extent.is_hole:
            continue
        begin = extent.offset & ~mask
        stop = min(extent.offset + extent.length + mask & ~mask, end)
        if ranges and begin <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], stop))
        else:
            ranges.append((begin, stop))
    return ranges
