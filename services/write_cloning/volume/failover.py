"""A side that fails, as the data path meets it: it leaves the routing, answers are withheld, the authority moves or stays.

What could lose data if it waited is done at once: a target that fails leaves the routing in the very call that reports the
failure, and no write is answered any more until the decision about it is durable (`withhold` to `answer_withheld`).
What is to be decided is not known here; the listener is told.
"""

import asyncio
import errno
from collections.abc import Callable, Mapping
from typing import Any

from services.write_cloning.volume.failures import TIMEOUT, Failure, FailureListener
from services.write_cloning.volume.orphans import Orphans
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.route import BIT, BOTH, SOURCE, TARGET, Route
from services.write_cloning.volume.stillness import Stillness
from shared.migration.devices import Side

# What a request waits for, besides sides.
WITNESS = 4  # a decision that is not durable yet
RECOPY = 8  # the range to be made equal on both sides again


class Failover:
    """That of one volume. `withheld` is what every write waits for from its start: 0, or `WITNESS`."""

    def __init__(
        self,
        *,
        route: Route,
        active: Mapping[Request, None],
        orphans: Orphans,
        stillness: Stillness,
        listener: FailureListener,
        leave: Callable[[int], None],
        finish: Callable[[Request], None],
    ) -> None:
        """`active` are the writes and flushes under way, oldest first.

        `leave` lets what else there is (reads, block status) wait for a side no more; `finish` ends a request that waits
        for nothing.
        """
        self.withheld = 0
        self.has_dropped_target = False  # and the volume has not got another one since
        self._route = route
        self._active = active
        self._orphans = orphans
        self._stillness = stillness
        self._listener = listener
        self._leave = leave
        self._finish = finish
        self._failed_on_source: set[Request] = set()  # whose errors a move of the authority undoes
        self._failed_in_move: list[tuple[Failure, Request | None]] | None = None
        # Whose ranges are being made equal. One that waits for a decision meanwhile comes by again; a second copy could land on
        # what is written once the first one is done.
        self._being_settled: set[Request] = set()

    # ------------------------------------------------------------------ for the migration

    def drop(self, side: Side, *, withhold: bool) -> None:
        """Take a side out of the routing at once. Requests no longer wait for it; its buffers stay pinned until it lets go.

        With `withhold`, nothing that has not been answered is answered before `answer_withheld`.
        """
        bit = BIT[side]
        route = self._route
        route.write_sides &= ~bit
        route.flush_sides &= ~bit
        route.in_sync = False
        if route.reads is side:
            route.reads = side.other
        if side is Side.TARGET:
            self.has_dropped_target = True
        if withhold:
            self.withheld = WITNESS
        self._leave(bit)
        for request in list(self._active):
            self._forget_side(request, bit)
        self._failed_on_source.clear()
        if withhold:
            self._stillness.side_failed()
        self._stillness.look()

    async def unless_target_leaves(self, work: "asyncio.Future[Any]") -> bool:
        """Wait until something is done, but no longer than the target is in the routing; returns whether it is done.

        For the decision point: once the target has left, writes are withheld until that is decided.
        """
        work.add_done_callback(lambda _: self._stillness.look())
        await self._stillness.until(lambda: work.done() or self.has_dropped_target, ends_with_failure=False)
        return work.done()

    def answer_withheld(self) -> None:
        """The decision is durable: answer what waited for it."""
        self.withheld = 0
        for request in list(self._active):
            if request.waiting & WITNESS:
                request.waiting &= ~WITNESS
                self.advance(request)

    @property
    def is_repairing(self) -> bool:
        """Whether a range is being copied from the source again. What the target has been asked for may land at any time."""
        return any(request.waiting & RECOPY for request in self._active)

    def begin_move(self) -> None:
        """The authority is about to move to the target: until `end_move` it is open whose errors the target's are."""
        self._failed_in_move = []

    def end_move(self, *, moved: bool) -> None:
        """Moved, and the source is dropped: errors of the target are the application's. Not moved: it has failed, as ever."""
        failed, self._failed_in_move = self._failed_in_move or [], None
        if not moved:
            if failed:
                self.target_failed(failed[0][0])
            return
        for failure, request in failed:
            if request is not None:
                request.error = (
                    failure.errno or errno.EIO
                )  # even where it was the source that had failed before
                if not self.withheld:
                    request.waiting &= ~WITNESS
                    self.advance(request)

    def keep_authority(self) -> None:
        """The source stays the authority although it has failed writes: the target gets what the source has in their place."""
        for request in self._failed_on_source:
            if request.kind is not Kind.FLUSH:
                request.waiting |= RECOPY
        self._failed_on_source.clear()

    def settle(self, request: Request) -> None:
        """Both sides hold the same again where the source failed this write: answer it, with the source's error."""
        self._being_settled.discard(request)
        if request.waiting & RECOPY:
            request.waiting &= ~RECOPY
            self.advance(request)

    def needs_recopy(self, request: Request) -> bool:
        """Whether the sides still have to be made equal for this write; a target that was dropped needs it no more."""
        return request.waiting & RECOPY != 0

    # ------------------------------------------------------------------ for whoever meets a failure

    def target_failed(self, failure: Failure) -> None:
        """The target has failed something, in the data path or elsewhere: it leaves the routing in this very call."""
        if self._failed_in_move is not None:
            self._failed_in_move.append((failure, None))
        elif self._route.write_sides == BOTH:
            self.drop(Side.TARGET, withhold=True)
            self._listener.target_failed(failure)

    def target_timed_out(self, request: Request) -> None:
        """Treat a request that the target does not answer as failed."""
        self.target_failed(Failure.of_request(Side.TARGET, request, errno.ETIMEDOUT, TIMEOUT))

    def source_failed(self, failure: Failure) -> None:
        """The source has failed something outside the data path: where reads leave it out, ask for the authority to move."""
        if self._route.write_sides == BOTH and self._route.reads is Side.TARGET:
            self._lose_source(failure)
        else:
            self._listener.source_failed(failure)

    def source_timed_out(self, request: Request) -> None:
        """The source does not answer while reads come from the target: ask for the authority to move. The request still waits."""
        self._lose_source(Failure.of_request(Side.SOURCE, request, errno.ETIMEDOUT, TIMEOUT))

    # ------------------------------------------------------------------ for the volume

    def advance(self, request: Request) -> None:
        """Go on with a request that waits for less than before."""
        if not request.waiting:
            self._finish(request)
        elif request.waiting == RECOPY and request not in self._being_settled:
            self._being_settled.add(request)
            self._listener.sides_differ(request)

    def source_done(self, request: Request, error: int) -> None:
        """The source is done with a request, and either it has failed it or nobody waits for it any more."""
        if not request.waiting & SOURCE:
            self._orphans.release(request, SOURCE)
            return
        request.waiting ^= SOURCE
        request.error = error
        route = self._route
        if route.write_sides == BOTH:
            failure = Failure.of_request(Side.SOURCE, request, error)
            if route.reads is Side.TARGET:
                self._failed_on_source.add(request)
                self._lose_source(failure)
                return
            if request.kind is not Kind.FLUSH and request.sides & TARGET:
                request.waiting |= RECOPY
            self._listener.source_failed(failure)
            if request.durable and route.source.flush_error:
                # What was cached before may be lost as well, and the copier would lay what is left over it on the target.
                self._listener.source_failed(Failure.of_flush(Side.SOURCE, route.source.flush_error))
        self.advance(request)

    def target_done(self, request: Request, error: int) -> None:
        """The same of the target."""
        if not request.waiting & TARGET:
            self._orphans.release(request, TARGET)
            return
        request.waiting ^= TARGET
        if not self._route.write_sides & SOURCE:
            request.error = error  # the target is the authority: its errors are the application's
            self.advance(request)
            return
        failure = Failure.of_request(Side.TARGET, request, error)
        if self._failed_in_move is None:
            self.target_failed(failure)
        else:
            request.waiting |= WITNESS
            self._failed_in_move.append((failure, request))

    def _lose_source(self, failure: Failure) -> None:
        self._withhold()
        self._listener.source_lost(failure)

    def _withhold(self) -> None:
        """Answer no write or flush until `answer_withheld`: a decision is being made."""
        self.withheld = WITNESS
        for request in self._active:
            request.waiting |= WITNESS
        self._stillness.side_failed()

    def _forget_side(self, request: Request, bit: int) -> None:
        waiting = request.waiting
        if waiting & bit:
            waiting ^= bit
            if request.buffer is not None:
                request.buffer.retain()
            self._orphans.keep(request, bit, request.buffer)
        if bit == TARGET:
            waiting &= ~RECOPY
        elif request in self._failed_on_source:
            request.error = 0  # the target has it, and holds the authority
        request.waiting = waiting | self.withheld
        self.advance(request)
