"""The copier: brings every region of the source to the target while the application keeps writing.

A region is copied under exclusion: writes to it that came before are done on both sides, those that come meanwhile wait.
So the copier never overwrites newer data with older (rule R4), and because its place in the order is that of its arrival,
an application that saturates the volume cannot keep it out.

Holes of the source are not read: the target gets a hole where it can have one, and nothing at all where it has one already.
"""

import asyncio
import errno
from bisect import bisect_left, insort
from collections.abc import Coroutine, Sequence
from typing import NoReturn

from services.write_cloning.devices import transfers
from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.devices.extents import FileShrunkError
from services.write_cloning.devices.interface import Device, Extent, ZeroMode
from services.write_cloning.pace import Pace
from services.write_cloning.patience import patience
from services.write_cloning.throttle import Throttle
from services.write_cloning.volume.failures import TIMEOUT, Failure, FailureListener
from services.write_cloning.volume.regions import REGION_DIFFERS
from services.write_cloning.volume.room import take
from services.write_cloning.volume.volume import Volume
from shared.messages.status import UNREADABLE_REGIONS_MAX
from shared.migration.devices import Side

COPIES_IN_FLIGHT = 4
LOOK_AHEAD_BYTES = 256 << 20  # how far the source is asked for holes at once
REGIONS_TOLD_MAX = 4096  # by one answer about them: a millisecond's work

_NEGATED = b"\1" + bytes(255)


class TargetFailedError(Exception):
    """The target failed while a region was copied; the volume knows."""


class Copier:
    """Copies regions until none is due. One per attempt."""

    def __init__(
        self,
        *,
        volume: Volume,
        listener: FailureListener,
        source: Device,
        target: Device,
        pool: BufferPool,
        region_size_bytes: int,
        throttle: Throttle,
        io_timeout_s: float,
    ) -> None:
        """Begin with every region due, and not paused."""
        self._volume = volume
        self._listener = listener
        self._source = source
        self._target = target
        self._pool = pool
        self._region_size_bytes = region_size_bytes
        self._throttle = throttle
        self._io_timeout_s = io_timeout_s
        self._region_count = -(-volume.size_bytes // region_size_bytes)
        self._next_region = 0
        self._pace = Pace()
        self._data_hint = (0, 0)  # bytes that held data when the source was last asked
        self._hint_asked_to = 0
        self._is_synced = bytearray(self._region_count)
        self.synced_bytes = 0
        self.at_work: set[int] = set()  # the regions that are being copied, or wait for the throttle
        self._unreadable: list[int] = []  # in order

    def copy_only(self, due_regions: bytes) -> None:
        """Before `run`: copy only the regions that are not 0 here; the others are the same on both sides already."""
        self._is_synced[:] = due_regions.translate(_NEGATED)
        self.synced_bytes = self._is_synced.count(1) * self._region_size_bytes
        if self._region_count and self._is_synced[-1]:
            self.synced_bytes -= self._region_size_bytes - self._length(self._region_count - 1)

    @property
    def is_paused(self) -> bool:
        """Whether `pause` is in force."""
        return self._pace.is_paused

    @property
    def unreadable_regions(self) -> tuple[int, ...]:
        """The first regions of the source that could not be read, by number."""
        return tuple(self._unreadable[:UNREADABLE_REGIONS_MAX])

    @property
    def is_stuck(self) -> bool:
        """Whether nothing is left to copy but regions that could not be read, which are not tried again."""
        return bool(self._unreadable) and not self.at_work and self._next_due() < 0

    def is_unreadable_in(self, begin: int, end: int) -> bool:
        """Whether the source could not be read in any of these regions."""
        at = bisect_left(self._unreadable, begin)
        return at < len(self._unreadable) and self._unreadable[at] < end

    def is_synced_in(self, begin: int, end: int) -> bool:
        """Whether all of these regions are the same on both sides."""
        return self._is_synced.find(0, begin, end) < 0

    def pause(self) -> None:
        """Begin no further region; those begun are finished."""
        self._pace.pause()

    def resume(self) -> None:
        """Go on."""
        self._pace.resume()

    def rate_bytes_per_s(self) -> float:
        """Progress over the last few seconds."""
        return self._pace.rate_bytes_per_s()

    def region_status(self, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """Which parts of a range are the same on both sides, for the context `cutover:region`.

        Of a long range only the beginning is looked at, because the loop waits meanwhile.
        """
        runs: list[tuple[int, int]] = []
        at, end = offset, offset + min(length, REGIONS_TOLD_MAX * self._region_size_bytes)
        while at < end:
            region = at // self._region_size_bytes
            stop = min((region + 1) * self._region_size_bytes, end)
            flags = 0 if self._is_synced[region] else REGION_DIFFERS
            if runs and runs[-1][1] == flags:
                runs[-1] = (runs[-1][0] + stop - at, flags)
            else:
                runs.append((stop - at, flags))
            at = stop
        return runs

    async def run(self) -> bool:
        """Copy what is due; returns whether every region is the same on both sides now.

        Raises:
            TargetFailedError: the target failed; the volume has dropped it.
        """
        failures: list[BaseException] = []
        try:
            async with asyncio.TaskGroup() as copies:
                for _ in range(COPIES_IN_FLIGHT):
                    copies.create_task(self._copy_regions())
        except* TargetFailedError as failed:
            failures.extend(failed.exceptions)
        if failures:  # outside, because what is raised in an `except*` may come out wrapped in a group
            raise TargetFailedError(str(failures[0])) from failures[0]
        return not self._unreadable

    async def _copy_regions(self) -> None:
        while self._next_due() >= 0:
            await self._pace.going()
            if (region := self._next_due()) >= 0:
                self._next_region = region + 1
                self.at_work.add(region)
                try:
                    await self._copy_region(region)
                finally:
                    self.at_work.discard(region)

    def _next_due(self) -> int:
        return self._is_synced.find(0, self._next_region)

    def _length(self, region: int) -> int:
        return min(self._region_size_bytes, self._volume.size_bytes - region * self._region_size_bytes)

    async def _copy_region(self, region: int) -> None:
        low = region * self._region_size_bytes
        high = low + self._length(region)
        is_all_data = await self._was_all_data(low, high)
        await self._throttle.take(high - low)
        exclusion = await self._volume.exclude(low, high)
        try:
            is_readable = await self._copy_excluded(low, high, is_all_data)
        finally:
            self._volume.include(exclusion)
        if is_readable:
            self._is_synced[region] = True
            self.synced_bytes += high - low
            self._volume.marks.copied(region)
            self._pace.add(high - low)
        else:
            insort(self._unreadable, region)

    async def _copy_excluded(self, low: int, high: int, is_all_data: bool) -> bool:
        # Taken for one region only, so that a copier that is paused or waits for its range holds none; and after the range, since
        # nobody who holds memory may wait for a place in the order.
        buffer = await take(self._pool, high - low)
        try:
            return await self._copy_range(low, high, is_all_data, buffer)
        finally:
            buffer.release()

    async def _was_all_data(self, low: int, high: int) -> bool:
        """Whether the whole range held data when the source was last asked: then it is read without asking again.

        Data that has become a hole meanwhile is read as zeroes, which costs time and no more. The other way round a write
        could be lost, so a hole is only believed under exclusion.
        """
        if high > self._hint_asked_to:
            self._hint_asked_to = min(low + LOOK_AHEAD_BYTES, self._volume.size_bytes)
            for extent in await self._extents_of_source(low, self._hint_asked_to - low):
                if not extent.is_hole:
                    self._data_hint = (extent.offset, extent.offset + extent.length)
                    break
        begin, end = self._data_hint
        return begin <= low and high <= end

    async def _extents_of_source(self, offset: int, length: int) -> Sequence[Extent]:
        try:
            return await self._source.extents(offset, length)
        except OSError:
            # Not being told is no fault: every byte is read instead, and a source that cannot be read says so then.
            return (Extent(offset, length, is_hole=False),)

    async def _copy_range(self, low: int, high: int, is_all_data: bool, buffer: Buffer) -> bool:
        extents: Sequence[Extent] = (Extent(low, high - low, is_hole=False),)
        if not is_all_data:
            extents = await self._extents_of_source(low, high - low)
        for extent in _aligned(extents, self._volume.alignment_bytes, high):
            if extent.is_hole:
                await self._make_hole(extent)
                self._throttle.give_back(extent.length)
            elif not await self._copy_data(extent, buffer):
                return False
        return True

    async def _copy_data(self, extent: Extent, buffer: Buffer) -> bool:
        error = await transfers.read(self._source, extent.offset, buffer, extent.length)
        if error:
            self._listener.source_failed(_failure(Side.SOURCE, "read", extent, error))
            return False
        await self._on_target(
            "write", extent, transfers.write(self._target, extent.offset, buffer, 0, extent.length)
        )
        return True

    async def _make_hole(self, hole: Extent) -> None:
        for extent in await self._extents_of_target(hole):
            if not extent.is_hole:
                zeroing = transfers.zero(self._target, extent.offset, extent.length, ZeroMode.PUNCH)
                await self._on_target("zero", extent, zeroing)

    async def _extents_of_target(self, hole: Extent) -> Sequence[Extent]:
        try:
            async with patience(self._io_timeout_s):
                return await self._target.extents(hole.offset, hole.length)
        except TimeoutError:
            self._fail_target("read", hole, errno.ETIMEDOUT, TIMEOUT)
        except FileShrunkError:  # zeroing would «succeed» beyond its end, and put nothing there
            self._fail_target("read", hole, errno.EIO, None)
        except OSError:
            return (Extent(hole.offset, hole.length, is_hole=False),)  # not known to be zero

    async def _on_target(
        self, operation: str, extent: Extent, transfer: Coroutine[object, object, int]
    ) -> None:
        cause = None
        try:
            async with patience(self._io_timeout_s):
                error = await transfer
        except TimeoutError:
            error, cause = errno.ETIMEDOUT, TIMEOUT
        if error:
            self._fail_target(operation, extent, error, cause)

    def _fail_target(self, operation: str, extent: Extent, error: int, cause: str | None) -> NoReturn:
        failure = _failure(Side.TARGET, operation, extent, error, cause)
        self._volume.failover.target_failed(failure)
        raise TargetFailedError(f"{operation} at {extent.offset}: {failure.cause}")


def _failure(side: Side, operation: str, extent: Extent, error: int, cause: str | None = None) -> Failure:
    return Failure(
        side=side,
        operation=operation,
        cause=cause or errno.errorcode.get(error, str(error)),
        errno=error,
        offset=extent.offset,
        length=extent.length,
    )


def _aligned(extents: Sequence[Extent], alignment_bytes: int, end: int) -> Sequence[Extent]:
    """The extents with holes shrunk to whole blocks and data grown to them, for direct I/O."""
    if alignment_bytes == 1:
        return extents
    mask = alignment_bytes - 1
    aligned: list[Extent] = []
    at = extents[0].offset
    for extent in extents:
        if not extent.is_hole:
            continue
        begin = extent.offset + mask & ~mask
        stop = min(extent.offset + extent.length & ~mask, end)
        if begin < stop:
            if at < begin:
                aligned.append(Extent(at, begin - at, is_hole=False))
            aligned.append(Extent(begin, stop - begin, is_hole=True))
            at = stop
    if at < end:
        aligned.append(Extent(at, end - at, is_hole=False))
    return aligned
