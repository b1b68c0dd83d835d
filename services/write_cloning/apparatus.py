"""What one migration works with: its two devices, its volume and its copier, and the moves that decisions make with them.

It knows how each move is made, not when one is allowed.
"""

import asyncio
import errno
import logging
from collections.abc import Callable

from services.write_cloning.application_errors import ApplicationErrors, BrokenDevice
from services.write_cloning.copier import Copier, TargetFailedError
from services.write_cloning.devices import transfers
from services.write_cloning.devices.absent import AbsentDevice
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.interface import Device, Unfenced
from services.write_cloning.left_behind import LeftBehind
from services.write_cloning.map_keeper import MapKeeper
from services.write_cloning.patience import SLICES, patience
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.throttle import Throttle
from services.write_cloning.verification import Verification
from services.write_cloning.volume.failures import TIMEOUT, Failure, FailureListener, SideFailedError
from services.write_cloning.volume.marks import CLEAN
from services.write_cloning.volume.regions import everything_in_sync, nothing_in_sync
from services.write_cloning.volume.repair import copy_again
from services.write_cloning.volume.requests import Request
from services.write_cloning.volume.volume import Volume
from shared.logs.about import about
from shared.messages.status import Outcome
from shared.migration.devices import Side
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, Refusal
from shared.migration.states import CLONING_STATES, IN_SYNC_STATES, State, routing_of

log = logging.getLogger(__name__)

COPY_BUDGET_BYTES = 64 << 20
VOLUME_BUDGET_BYTES = 64 << 20
REPAIR_BUDGET_BYTES = 8 << 20


class Apparatus:
    """The moving parts of one migration."""

    def __init__(
        self,
        *,
        name: str,
        devices: DevicePair,
        source: Device,
        target: Device,
        listener: FailureListener,
        around: Surroundings,
        maps: MapKeeper,
    ) -> None:
        """Take over two devices; a side that is not open is an `AbsentDevice`. The volume is closed at first."""
        self.name = name
        self.source = source
        self.target = target
        self.throttle = Throttle()
        # Of this migration alone: a device that hangs keeps the buffers that it was given, and nobody else shall want for them;
        # nor shall the application, where it is the copier's.
        self._copy_pool = BufferPool(COPY_BUDGET_BYTES)
        self._volume_pool = BufferPool(VOLUME_BUDGET_BYTES)
        # Not the volume's: failed writes of parts of blocks keep theirs until they are repaired.
        self._repair_pool = BufferPool(REPAIR_BUDGET_BYTES)
        self.application_errors = ApplicationErrors(
            name, around.host, around.clock, asyncio.get_running_loop().time
        )
        self.copier: Copier | None = None
        self.verification: Verification | None = None  # the last one of this run
        self.volume = Volume(
            size_bytes=devices.source.size_bytes,
            alignment_bytes=max(source.alignment_bytes, target.alignment_bytes),
            region_size_bytes=around.limits.region_size_bytes,
            pool=self._volume_pool,
            listener=listener,
            source=source,
            target=target,
            patience_s=around.limits.io_timeout_s,
        )
        self.volume.told_error = self.application_errors.note
        self.maps = maps
        self.due_regions: bytes | None = None  # those that the attempt has to copy; None: all
        self.volume.record_in(maps.marks)
        self._devices = devices
        self._listener = listener
        self._around = around
        self._copying: asyncio.Task[None] | None = None
        self._verifying: asyncio.Task[None] | None = None
        for device in (source, target):
            self._take_over(device)
        self.left_behind = LeftBehind(name, devices, self._device, around.tasks)

    @property
    def application_trouble(self) -> str:
        """What the application meets now, in sentences; empty where there is nothing."""
        return self.application_errors.trouble(self._broken())

    def _broken(self) -> BrokenDevice | None:
        """The device without which requests fail, where it is a remote one that is broken."""
        side, state = self.volume.sides_by_authority()[0], self.volume.state
        device = self._device(side)
        if state is None or routing_of(state, side).reads is not side:
            return None  # while reads come from the other side, nothing fails: the authority moves
        if not (isinstance(device, Unfenced) and device.is_broken):
            return None
        is_in_sync = state in IN_SYNC_STATES and not self.volume.failover.has_dropped_target
        return BrokenDevice(
            side=side, name=device.identity.name, has_equal=side is Side.SOURCE and is_in_sync
        )

    @property
    def open_sides(self) -> tuple[Side, ...]:
        """The sides whose devices are in use, or were until they were closed at the end of the run."""
        return tuple(side for side in Side if not isinstance(self._device(side), AbsentDevice))

    def _take_over(self, device: Device) -> None:
        if isinstance(device, Unfenced):
            device.belong_to(self.name)

    @property
    def due_bytes(self) -> int:
        """What a `sync` would copy if writes were not cloned any more from now on."""
        states, region_size_bytes = self.volume.marks.states, self._around.limits.region_size_bytes
        whole_bytes = (len(states) - states.count(CLEAN)) * region_size_bytes
        beyond_the_end = len(states) * region_size_bytes - self.volume.size_bytes
        return whole_bytes - beyond_the_end if states and states[-1] != CLEAN else whole_bytes

    # ------------------------------------------------------------------ the target

    async def open_target(self) -> None:
        """Open the target unless it is open.

        Raises:
            Refusal: it cannot be opened, or requests of an earlier attempt may still land on it.
        """
        self.left_behind.refuse()
        if (
            isinstance(self.target, Unfenced) and self.target.is_broken
        ):  # while it waited, with nothing under way
            await self.target.close()
            self.target = AbsentDevice(self._devices.target)
        if isinstance(self.target, AbsentDevice):
            device = await self._around.opener.open_recorded(self._devices.target, is_target=True)
            if device.alignment_bytes > self.volume.alignment_bytes:
                await device.close()
                message = (
                    f"{device.identity.name} takes blocks of {device.alignment_bytes} bytes now; the volume was opened for "
                    f"smaller ones. Restart the write cloning service of host {self._around.host}."
                )
                raise Refusal(Code.DEVICE_CHANGED, message)
            self.target = device
            self._take_over(device)
            self.volume.replace(Side.TARGET, device)

    async def flush_target(self) -> None:
        """Flush the target; a failure takes it out of the routing.

        Raises:
            Refusal: it failed, in the flush or meanwhile.
        """
        if self.volume.failover.has_dropped_target:
            raise self._target_has_failed()
        is_clone = self.volume.sides_by_authority()[1] is Side.TARGET
        failure = await self._flush_in_turn(self.target, Side.TARGET)
        if failure is not None:
            self.volume.failover.target_failed(failure)
            message = f"The target of {self.name} could not be flushed ({failure.cause})"
            consequence = "the migration goes back to setup" if is_clone else "nothing has changed"
            raise Refusal(Code.DEVICE_FAILED, f"{message}; {consequence}.")

    async def flush_source(self) -> None:
        """Flush the source, so that it is known to have lost no write: none that was read around, none that will be looked for.

        Where writeback has failed, reads give the old data and only the next flush tells.

        Raises:
            Refusal: it failed, which is a fault of the source; or (`busy`) it takes longer than `io_timeout`, which is
                none; or the target failed meanwhile.
        """
        failure = await self._flush_in_turn(self.source, Side.SOURCE)
        if failure is None:
            return
        if failure.cause == TIMEOUT:
            message = (
                f"The source of {self.name} was not flushed within {self._around.limits.io_timeout_s:g} s"
            )
            raise Refusal(Code.BUSY, f"{message}; nothing has changed.")
        self.volume.failover.source_failed(failure)
        message = f"The source of {self.name} could not be flushed ({failure.cause})"
        raise Refusal(Code.DEVICE_FAILED, f"{message}: it may have lost writes that it had answered.")

    async def flush_all(self) -> Failure | None:
        """Flush what the last state wrote to; returns the failure of the authority, if there was one.

        A target that fails while the source is the authority is reported to the listener, like any other fault.
        """
        authority, other = self.volume.sides_by_authority()
        if other is not None and (failure := await self._flush(self._device(other), other)):
            self.volume.failover.target_failed(failure)
        return await self._flush(self._device(authority), authority)

    async def release_target(self) -> None:
        """Close the target, once it has let go of its last request; nobody waits for that."""
        device, self.target = self.target, AbsentDevice(self._devices.target)
        self.volume.replace(Side.TARGET, self.target)
        self.left_behind.retire(device)

    async def release_source(self) -> None:
        """Close the source, likewise."""
        device, self.source = self.source, AbsentDevice(self._devices.source)
        self.volume.replace(Side.SOURCE, self.source)
        self.left_behind.retire(device)

    def _device(self, side: Side) -> Device:
        return self.source if side is Side.SOURCE else self.target

    async def _flush_in_turn(self, device: Device, side: Side) -> Failure | None:
        """Flush for a decision.

        Raises:
            Refusal: the target left the routing meanwhile; writes wait for the decision about that.
        """
        flushing = self._around.tasks.create_task(self._flush(device, side), name=f"flush {self.name}")
        try:
            if await self.volume.failover.unless_target_leaves(flushing):
                return flushing.result()
        finally:
            flushing.cancel()
        raise self._target_has_failed()

    def _target_has_failed(self) -> Refusal:
        return Refusal(Code.DEVICE_FAILED, f"The target of {self.name} has failed; it goes back to setup.")

    async def _flush(self, device: Device, side: Side) -> Failure | None:
        cause = None
        try:
            async with patience(self._around.limits.io_timeout_s):
                error = await transfers.flush(device)
        except TimeoutError:
            error, cause = errno.ETIMEDOUT, TIMEOUT
        if not error:
            return None
        cause = cause or errno.errorcode.get(error, str(error))
        return Failure(side=side, operation="flush", cause=cause, errno=error)

    # ------------------------------------------------------------------ routing

    async def hold_writes(self) -> None:
        """Wait until no write is under way; new ones wait for `release_writes`.

        Raises:
            Refusal: a device failed meanwhile, or the writes took longer than `io_timeout`; they go on as before.
        """
        try:
            async with patience(self._around.limits.io_timeout_s):
                await self.volume.quiesce()
        except SideFailedError:
            self.volume.release()
            raise Refusal(Code.DEVICE_FAILED, f"A device of {self.name} failed meanwhile.") from None
        except TimeoutError:
            self.volume.release()
            message = f"Writes to {self.name} did not finish within {self._around.limits.io_timeout_s:g} s"
            raise Refusal(Code.BUSY, f"{message}; nothing has changed.") from None

    def switch_routing(self, state: State, authority: Side) -> None:
        """Route by the new state; a source that is no longer the authority is dropped."""
        if authority is Side.TARGET:
            self.volume.failover.drop(Side.SOURCE, withhold=False)
        self.volume.route(state, routing_of(state, authority))
        self.volume.marks.marks_as_due = state is State.SETUP
        is_in_sync = authority is Side.SOURCE and state in IN_SYNC_STATES
        self.volume.region_status = everything_in_sync if is_in_sync else nothing_in_sync

    def release_writes(self) -> None:
        """Start what was held, answer what was withheld."""
        self.volume.release()
        self.volume.failover.answer_withheld()

    async def make_equal(self, request: Request) -> None:
        """Copy a range again that the source failed to write, then answer the write with the source's error."""
        try:
            async with patience(self._around.limits.io_timeout_s):
                error = await copy_again(
                    self.source,
                    self.target,
                    request.low,
                    request.high,
                    self._repair_pool,
                    is_wanted=lambda: self.volume.failover.needs_recopy(request),
                    flush_failed=self._source_flush_failed,
                )
        except TimeoutError:
            error = errno.ETIMEDOUT
        if error:
            cause = "not equal to the source, which failed the write before"
            self.volume.failover.target_failed(
                Failure(side=Side.TARGET, operation="write", cause=cause, errno=error, offset=request.offset)
            )
        self.volume.failover.settle(request)

    def _source_flush_failed(self, error: int) -> None:
        self._listener.source_failed(Failure.of_flush(Side.SOURCE, error))

    # ------------------------------------------------------------------ the copier

    def start_copying(self, *, paused: bool, copied: Callable[[Copier], None]) -> None:
        """Copy every region that is due, and call `copied` when all are the same on both sides."""
        limits = self._around.limits
        self.copier = copier = Copier(
            volume=self.volume,
            listener=self._listener,
            source=self.source,
            target=self.target,
            pool=self._copy_pool,
            region_size_bytes=limits.region_size_bytes,
            throttle=self.throttle,
            io_timeout_s=limits.io_timeout_s,
        )
        if self.due_regions is not None:
            copier.copy_only(self.due_regions)
        self.volume.region_status = copier.region_status
        if paused:
            copier.pause()
        self._copying = self._around.tasks.create_task(self._copy(copier, copied), name=f"copy {self.name}")

    async def stop_copying(self) -> None:
        """Begin no further region, and wait until those begun are given up."""
        task, self._copying, self.copier = self._copying, None, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def _copy(self, copier: Copier, copied: Callable[[Copier], None]) -> None:
        try:
            is_complete = await copier.run()
        except TargetFailedError:
            return  # the volume has dropped the target and told the decision point
        if is_complete:
            copied(copier)

    # ------------------------------------------------------------------ the verification

    def prepare_verification(self, verification_id: str, *, paused: bool) -> Verification:
        """A comparison of both sides, for `start_verifying`."""
        self.verification = verification = Verification(
            verification_id=verification_id,
            volume=self.volume,
            listener=self._listener,
            devices={Side.SOURCE: self.source, Side.TARGET: self.target},
            pool=self._copy_pool,  # there is no copier while both sides are in sync
            limits=self._around.limits,
            throttle=self.throttle,
            clock=self._around.clock,
        )
        if paused:
            verification.pace.pause()
        return verification

    def start_verifying(
        self, verification: Verification, found_equal: Callable[[Verification], None]
    ) -> None:
        """Compare, and call `found_equal` when both sides were the same everywhere."""
        work = self._verify(verification, found_equal)
        self._verifying = self._around.tasks.create_task(work, name=f"verify {self.name}")

    async def stop_verifying(self, why: str) -> None:
        """Compare no further, where a comparison is under way; returns when it touches no device any more."""
        task, self._verifying = self._verifying, None
        if self.verification is not None and self.verification.outcome is None:
            self.verification.conclude(Outcome.INCOMPLETE, why)
            self._tell_outcome(self.verification)
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def _verify(self, verification: Verification, found_equal: Callable[[Verification], None]) -> None:
        if await verification.run():
            found_equal(verification)
        else:
            self._tell_outcome(verification)

    def _tell_outcome(self, verification: Verification) -> None:
        view = verification.view()
        log.warning("the comparison is %s: %s", view.outcome, view.detail, extra=about(self.name))

    def pause_jobs(self, *, paused: bool) -> None:
        """Hold whatever copies or compares, or let it go on."""
        comparing = None if self.verification is None else self.verification.pace
        for job in (self.copier, comparing):
            if job is None:
                continue
            if paused:
                job.pause()
            else:
                job.resume()

    # ------------------------------------------------------------------ watching

    async def watch(self) -> None:
        """Look after requests that a device does not answer, and errors of the target that only a flush brings out. Endless."""
        async with asyncio.TaskGroup() as flushing:
            await self._watch(flushing)

    async def _watch(self, flushing: asyncio.TaskGroup) -> None:
        # Nothing is waited for but the clock: time is what is counted here, and flushes are what hangs.
        limits = self._around.limits
        loop = asyncio.get_running_loop()
        flush_at = loop.time() + limits.target_flush_interval_s
        flush: asyncio.Task[None] | None = None
        while True:
            await asyncio.sleep(limits.io_timeout_s / SLICES)
            tick = self.volume.overdue.count()
            overdue = self.volume.overdue.on_target(tick - SLICES)
            if overdue is not None:
                self.volume.failover.target_timed_out(overdue)
            overdue = self.volume.overdue.on_source(tick - SLICES)
            if overdue is not None:
                self.volume.failover.source_timed_out(overdue)
            if loop.time() >= flush_at and (flush is None or flush.done()):
                flush_at = loop.time() + limits.target_flush_interval_s
                flush = flushing.create_task(self.flush_clone(), name=f"flush the clone of {self.name}")

    async def flush_clone(self) -> None:
        """Flush the target, and the source too where that makes regions clean: those that nobody wrote for a while."""
        target, marks = self.target, self.volume.marks
        if not self._is_cloning_to(target):
            return
        could_be_clean = self.volume.begin_aging()
        failure, error = await asyncio.gather(
            self._flush(target, Side.TARGET), self._flush_as_application() if could_be_clean else _no_error()
        )
        if failure is not None and target is self.target:
            self.volume.failover.target_failed(failure)
        elif could_be_clean and not error and marks is self.volume.marks and self._is_cloning_to(target):
            marks.age_out()

    def _is_cloning_to(self, target: Device) -> bool:
        is_clone = self.volume.sides_by_authority()[1] is Side.TARGET
        return self.volume.state in CLONING_STATES and is_clone and target is self.target

    async def _flush_as_application(self) -> int:
        try:
            async with patience(self._around.limits.io_timeout_s):
                return await self.volume.flush()
        except TimeoutError:
            return errno.ETIMEDOUT  # whatever follows from that, the volume sees to it


async def _no_error() -> int:
    return 0
