"""The volume: application I/O on its way to the devices. The hot path of the product.

A write goes to every side of the routing, and is complete when all of them have done it (rule R3). What a request still
waits for stands as bits in `request.waiting`; whoever clears the last bit completes it. There is no future, task or log line
for a request.

What a side that fails leads to is in `failover`: here are the ways on which nothing fails. The volume knows nothing of the
journal, the witness, or NBD.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.devices.interface import Device, ZeroMode
from services.write_cloning.volume.allocation import Allocation
from services.write_cloning.volume.exclusion import Exclusion
from services.write_cloning.volume.failover import RECOPY, Failover
from services.write_cloning.volume.failures import Failure, FailureListener, SideFailedError
from services.write_cloning.volume.flushes import Flushes
from services.write_cloning.volume.latency import Latency
from services.write_cloning.volume.marks import HOT, Marks
from services.write_cloning.volume.ordering import Ranged, WriteOrder
from services.write_cloning.volume.orphans import Orphans
from services.write_cloning.volume.overdue import Overdue
from services.write_cloning.volume.reads import Reads
from services.write_cloning.volume.regions import RegionStatus, nothing_in_sync
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.route import BIT, BOTH, SOURCE, TARGET, Route
from services.write_cloning.volume.stillness import Stillness
from services.write_cloning.volume.unaligned import AROUND, UnalignedWrites, is_unaligned
from shared.migration.devices import Side
from shared.migration.refusals import InvariantError
from shared.migration.states import IN_SYNC_STATES, Routing, State
from shared.nbd.constants import REGION_CONTEXT, AllocationStatus

ErrorListener = Callable[[Failure], None]

# What a request waits for, besides SOURCE, TARGET, WITNESS (4), RECOPY (8) and AROUND (16).
MARK = 32  # the region map to hold durably that its regions may differ

# Looking up a member of an enumeration costs as much as sending a request on.
_READ, _WRITE, _FLUSH, _CACHE = Kind.READ, Kind.WRITE, Kind.FLUSH, Kind.CACHE
_FROM_SOURCE = Side.SOURCE

_HOLE_AND_ZERO = int(AllocationStatus.HOLE | AllocationStatus.ZERO)


def _nobody(_failure: Failure) -> None:
    """Nobody wants to be told."""


class Volume:
    """One volume of fixed size. `submit` takes application requests; the rest is for the migration that owns it."""

    def __init__(
        self,
        *,
        size_bytes: int,
        alignment_bytes: int,
        region_size_bytes: int,
        pool: BufferPool,
        listener: FailureListener,
        source: Device,
        target: Device,
        patience_s: float | None = None,
    ) -> None:
        """Begin closed: every request is refused with ESHUTDOWN until `route` and `open`.

        `patience_s` is how long a device may take to tell of its holes.
        """
        self.size_bytes = size_bytes
        self.alignment_bytes = alignment_bytes
        self.state: State | None = None
        self.region_status: RegionStatus = nothing_in_sync
        self.told_error: ErrorListener = (
            _nobody  # of each device's error that the application was answered with
        )
        self.reads = self.writes = self.read_bytes = self.write_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._mask = alignment_bytes - 1
        self._order = WriteOrder(region_size_bytes.bit_length() - 1)
        self._enter_order: Callable[[Request], bool] = self._order.enter
        self._leave_order = self._order.leave
        self._route = Route(source, target)
        self._allocation = Allocation(self._route, patience_s)
        self._orphans = Orphans()
        self._stillness = Stillness()
        self._waiters = self._stillness.waiters
        self._active: dict[Request, None] = {}  # writes and flushes under way, oldest first
        self.failover = Failover(
            route=self._route,
            active=self._active,
            orphans=self._orphans,
            stillness=self._stillness,
            listener=listener,
            leave=self._leave,
            finish=self._finish,
        )
        self._reads = Reads(
            route=self._route,
            orphans=self._orphans,
            stillness=self._stillness,
            listener=listener,
            target_failed=self.failover.target_failed,
        )
        self._read = self._reads.start
        self.overdue = Overdue(self._route, self._active, self._reads, self.failover)
        # Each times one request at a time, by standing in for what `submit` calls, once: the others cost nothing more.
        self.read_latency = Latency(self._loop, self._time_next_read)
        self.write_latency = Latency(self._loop, self._time_next_write)
        self._is_open = False
        self._blocked = 0  # writes that wait for those before them, or for an exclusion to end
        self._held: deque[Request] | None = None  # writes that wait for `release`
        # Bound once: making a bound method costs more than calling it.
        self._on_source = self._source_done
        self._on_target = self._target_done
        self._flushes = Flushes(self._send_flush)
        self.record_in(Marks.of_nothing(-(-size_bytes // region_size_bytes)))
        self._unaligned = UnalignedWrites(
            pool=pool,
            mask=self._mask,
            route=self._route,
            reads=self._reads,
            failover=self.failover,
            done={SOURCE: self._on_source, TARGET: self._on_target},
            retire=self._retire,
            admit=self._admit,
        )
        self.read_latency.arm()
        self.write_latency.arm()

    # ------------------------------------------------------------------ for the migration: routing

    def route(self, state: State, routing: Routing) -> None:
        """Send every request from here on by this routing; those under way finish by the one that they were started with.

        A target that was dropped stays out: the decision about it is still to come.
        """
        route = self._route
        out = TARGET if self.failover.has_dropped_target else 0
        self.state = state
        route.reads = Side.SOURCE if out else routing.reads
        route.write_sides = _bits(routing.writes) & ~out
        route.flush_sides = _bits(routing.flushes) & ~out
        route.in_sync = route.write_sides == BOTH and state in IN_SYNC_STATES

    def sides_by_authority(self) -> tuple[Side, Side | None]:
        """The side that must have every write, and the one that gets them too, if any."""
        write_sides = self._route.write_sides
        if write_sides & SOURCE:
            return Side.SOURCE, Side.TARGET if write_sides & TARGET else None
        return Side.TARGET, None

    def replace(self, side: Side, device: Device) -> None:
        """Give a side another device. The side must not be in the routing."""
        route = self._route
        if BIT[side] & (route.write_sides | route.flush_sides):
            raise InvariantError(f"the {side} was replaced while the routing uses it")
        if side is Side.SOURCE:
            route.source = device
        else:
            route.target = device
            self.failover.has_dropped_target = False

    def record_in(self, marks: Marks) -> None:
        """Let no write from here on reach a device before its regions are marked in this map."""
        self.marks = marks
        self._states = marks.states
        marks.set_go_on(self._go_on_marked)

    def begin_aging(self) -> bool:
        """See `Marks.begin_aging`: false where the sides are not both written, or nothing could become clean."""
        return (
            self._route.write_sides == BOTH
            and self.marks.is_recording
            and self.marks.begin_aging(self._order.regions)
        )

    async def quiesce(self) -> None:
        """Start no new write, and wait until none is under way. Ended by `release`, whatever came of it.

        Raises:
            SideFailedError: a side has failed, and its decision is still to come.
        """
        if self.failover.withheld:
            raise SideFailedError
        self._held = deque() if self._held is None else self._held
        await self._stillness.until(self._has_no_write, ends_with_failure=True)

    def release(self) -> None:
        """Start the writes that `quiesce` held, in the order of their arrival."""
        held, self._held = self._held, None
        for request in held or ():
            self._admit(request)

    def open(self) -> None:
        """Take requests."""
        self._is_open = True

    async def close(self) -> None:
        """Refuse new requests with ESHUTDOWN, and wait until those under way are answered.

        So are those that a decision holds, by the routing that comes of it: they are its own to release, whatever that is.
        """
        self._is_open = False
        await self._stillness.until(self._has_no_request, ends_with_failure=False)

    async def flush(self) -> int:
        """Flush as for the application, a failure included; returns 0 or an errno."""
        flushed: asyncio.Future[int] = self._loop.create_future()

        def done(request: Request) -> None:
            if not flushed.done():
                flushed.set_result(request.error)

        self._flushes.ask(Request(_FLUSH, 0, 0, done))
        return await flushed

    def _has_no_write(self) -> bool:
        # Flushes may come and go: they serve writes that are done, on sides that the authority is among.
        return not self._blocked and len(self._active) == (self._flushes.under_way is not None)

    def _has_no_request(self) -> bool:
        return not (self._held or self._blocked or self._active or self._reads.under_way)

    # ------------------------------------------------------------------ for the copier

    async def exclude(self, low: int, high: int) -> Exclusion:
        """Keep writes out of a range: returns once those before are done; those after wait for `include`."""
        exclusion = Exclusion(low & ~self._mask, -(-high & ~self._mask), self._loop.create_future())
        if not self._order.enter(exclusion):
            await exclusion.wait(lambda: self.include(exclusion))
        return exclusion

    def include(self, exclusion: Exclusion) -> None:
        """Let writes into the range again."""
        self._start_all(self._order.leave(exclusion))

    # ------------------------------------------------------------------ for the application

    def submit(self, request: Request) -> None:
        """Take one request. It is completed later, from the loop, never from in here."""
        self.submit_all((request,))

    def submit_all(self, requests: Iterable[Request]) -> None:
        """Take requests as if one by one, in this order: what one loop iteration brings costs less when it comes at once."""
        if not self._is_open:
            for request in requests:
                self._refuse(request, errno.ESHUTDOWN)
            return
        mask = self._mask
        ready: list[Request] = []
        for request in requests:
            offset, length = request.offset, request.length
            if mask:
                request.low = offset & ~mask
                request.high = offset + length + mask & ~mask
            else:
                request.low = offset
                request.high = offset + length
            if request.kind is not _WRITE and not self._begin_other(request):
                continue
            self.writes += 1
            self.write_bytes += length
            if self._held is not None:
                self._held.append(request)
            elif not self._enter_order(request):
                self._blocked += 1
            elif request.kind is _WRITE:
                ready.append(request)
            else:  # on its way it may leave the order to those behind it
                self._start(ready)
                self._start((request,))
                ready = []
        self._start(ready)

    def _begin_other(self, request: Request) -> bool:
        """Begin what is not a write; whether it has to be ordered like one."""
        kind = request.kind
        if kind is _READ:
            self.reads += 1
            self.read_bytes += request.length
            self._read(request)
        elif kind is _FLUSH:
            self._flushes.ask(request)
        elif kind is _CACHE:
            self._reads.prefetch(request)
        elif request.fast and not self._zeroes_fast():
            self._refuse(request, errno.ENOTSUP)
        else:
            return True
        return False

    def _time_next_read(self) -> None:
        self._read = self._read_timed

    def _read_timed(self, request: Request) -> None:
        self._read = self._reads.start
        self.read_latency.begin(request)
        self._read(request)

    def _time_next_write(self) -> None:
        self._enter_order = self._enter_order_timed

    def _enter_order_timed(self, request: Request) -> bool:
        self._enter_order = self._order.enter
        self.write_latency.begin(request)
        return self._enter_order(request)

    def read_at_once(self, offset: int, into: memoryview) -> bool:
        """Read from the side that reads come from if that needs no waiting. False says nothing: submit a request."""
        if not self._is_open or self._mask:  # under direct I/O nothing is at hand
            return False
        route = self._route
        device = route.source if route.reads is _FROM_SOURCE else route.target
        if not device.read_at_once(offset, into):
            return False
        self.reads += 1
        self.read_bytes += len(into)
        return True

    async def block_status(
        self, offset: int, length: int, context: str, most: int
    ) -> Sequence[tuple[int, int]]:
        """Lengths and flags of consecutive extents: of the side that reads come from, or of what is in sync.

        The former are at most `most`, and may end before the range does.

        Raises:
            OSError: the device could not be asked.
        """
        if context == REGION_CONTEXT:
            return self.region_status(offset, length)
        try:
            extents = await self._allocation.extents(offset, length, most)
        except OSError as error:
            self.told_error(Failure.of_block_status(self._authority(), offset, length, error))
            raise
        return [(extent.length, _HOLE_AND_ZERO if extent.is_hole else 0) for extent in extents]

    def note_error(self, request: Request) -> None:
        """Tell of a request that its client was answered with its error. Whoever answers calls it, and for errors alone."""
        error = request.error
        is_ours = error == errno.ESHUTDOWN and not self._is_open
        if not is_ours and not (error == errno.ENOTSUP and request.fast):  # or else a device's error
            self.told_error(Failure.of_request(self._authority(), request, error))

    def _authority(self) -> Side:
        """Whose error an application gets: where another side could stand in, it has done so, or has failed as well."""
        return self.sides_by_authority()[0]

    def _zeroes_fast(self) -> bool:
        route = self._route
        source = not route.write_sides & SOURCE or route.source.can_zero_fast
        return source and (not route.write_sides & TARGET or route.target.can_zero_fast)

    def _refuse(self, request: Request, error: int) -> None:
        request.error = error
        self._loop.call_soon(request.complete, request)

    # ------------------------------------------------------------------ writes

    def _admit(self, request: Request) -> None:
        if self._order.enter(request):
            self._start((request,))
        else:
            self._blocked += 1

    def _start_all(self, entries: Iterable[Ranged]) -> None:
        for entry in entries:
            if isinstance(entry, Request):
                self._blocked -= 1
                self._start((entry,))
            elif isinstance(entry, Exclusion) and not entry.granted.done():
                entry.granted.set_result(None)

    def _start(self, requests: Iterable[Request]) -> None:
        """Send writes that nothing stands before, once their regions are marked."""
        active, states, mask, withheld = self._active, self._states, self._mask, self.failover.withheld
        marked: list[Request] = []
        for request in requests:
            active[request] = None
            region = request.region
            if (states[region] < HOT or region != request.last_region) and not self.marks.admit(request):
                request.waiting = MARK | withheld
            elif mask and is_unaligned(request):
                self._start_unaligned(request)
            else:
                request.waiting = withheld
                marked.append(request)
        self._send(marked)

    def _go_on_marked(self, request: Request) -> None:
        if self._mask and is_unaligned(request):
            self._start_unaligned(request)
            return
        request.waiting = self.failover.withheld
        self._send((request,))

    def _start_unaligned(self, request: Request) -> None:
        request.waiting = AROUND | self.failover.withheld
        self._unaligned.start(request)

    def _send(self, requests: Sequence[Request]) -> None:
        route, tick = self._route, self._reads.tick
        sides = route.write_sides
        plain: list[Request] = []
        for request in requests:
            request.sides = sides
            request.waiting |= sides
            request.started_tick = tick
            if request.durable or request.buffer is None:
                self._send_specially(request, request.buffer)
            else:
                plain.append(request)
        if plain and sides & SOURCE:
            route.source.write_all(plain, self._on_source)
        if plain and sides & TARGET:
            route.target.write_all(plain, self._on_target)

    def _send_specially(self, request: Request, buffer: Buffer | None) -> None:
        """Send a durable write, or zeroes."""
        route = self._route
        offset, length = request.offset, request.length
        mode = ZeroMode.PUNCH if request.may_punch else ZeroMode.ALLOCATE
        overdue = self.overdue
        devices = (
            (SOURCE, route.source, self._on_source, overdue.source_went_on),
            (TARGET, route.target, self._on_target, overdue.target_went_on),
        )
        for bit, device, done, went_on in devices:
            if request.sides & bit:
                is_durable = request.durable and route.flush_sides & bit != 0
                if buffer is None:
                    device.zero(offset, length, mode, is_durable, done, request, went_on)
                else:
                    write = device.write_durably if is_durable else device.write
                    write(offset, buffer, request.start, length, done, request)

    def _send_flush(self, flush: Request) -> None:
        self._active[flush] = None
        route = self._route
        flush.sides = route.flush_sides
        flush.waiting = flush.sides | self.failover.withheld
        flush.started_tick = self._reads.tick
        for bit, device, done in (
            (SOURCE, route.source, self._source_done),
            (TARGET, route.target, self._target_done),
        ):
            if flush.sides & bit:
                device.flush(done, flush)

    def _source_done(self, request: Request, error: int) -> None:
        waiting = request.waiting
        if error or not waiting & SOURCE:
            self.failover.source_done(request, error)
            return
        waiting ^= SOURCE
        request.waiting = waiting
        if not waiting:
            self._finish(request)

    def _target_done(self, request: Request, error: int) -> None:
        waiting = request.waiting
        if error or not waiting & TARGET:
            self.failover.target_done(request, error)
            return
        waiting ^= TARGET
        request.waiting = waiting
        if not waiting:
            self._finish(request)
        elif waiting == RECOPY:
            self.failover.advance(request)

    def _finish(self, request: Request) -> None:
        del self._active[request]
        if request.kind is not _FLUSH:
            freed = self._leave_order(request)
            if freed:
                self._start_all(freed)
        request.complete(request)
        if self._waiters:
            self._stillness.look()

    def _leave(self, side: int) -> None:
        self._reads.leave(side)
        self._allocation.leave(side)

    def _retire(self, request: Request) -> None:
        del self._active[request]
        self._start_all(self._order.leave(request))


def _bits(sides: Iterable[Side]) -> int:
    return sum(BIT[side] for side in sides)
