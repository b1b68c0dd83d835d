"""Reads on their way: from the side that reads come from, and from the other one where that fails or leaves the routing.

A read that fails on one side while both are in sync is answered from the other; a second failure is the application's.
What the target gives in the source's stead counts only after a flush of the target: its cache may have lost a cloned write, which
nothing but a flush tells. In the opposite case the source is all that is left, and reads as it would without Cutover.
Nobody waits for a side that has left: its read goes on elsewhere with another buffer, because it may still use the first. It
counts where the first did, against its client's budget: what a client does not take is nobody's want but its own.
"""

import errno
from collections.abc import Callable

from services.write_cloning.devices.interface import Done
from services.write_cloning.volume.failures import Failure, FailureListener
from services.write_cloning.volume.orphans import Orphans
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.route import SOURCE, TARGET, Route
from services.write_cloning.volume.stillness import Stillness
from shared.migration.devices import Side
from shared.migration.refusals import InvariantError

_FROM_SOURCE = Side.SOURCE  # looking up a member of an enumeration is slow

_SECOND = 1  # what `request.waiting` says of a read: one side has failed it already, with `request.error`


class Reads:
    """The reads and prefetches of one volume."""

    def __init__(
        self,
        *,
        route: Route,
        orphans: Orphans,
        stillness: Stillness,
        listener: FailureListener,
        target_failed: Callable[[Failure], None],
    ) -> None:
        """`target_failed` takes the target out of the routing."""
        self.under_way: dict[Request, None] = {}
        self.tick = 0
        self._route = route
        self._orphans = orphans
        self._stillness = stillness
        self._waiters = stillness.waiters
        self._listener = listener
        self._target_failed = target_failed
        self._undecided: list[
            Request
        ] = []  # which the target has failed while the authority is about to move to it

    def start(self, request: Request) -> None:
        """Read `low` to `high` into the request's buffer. Hot."""
        low = request.low
        request.start = request.offset - low
        request.started_tick = self.tick
        request.waiting = 0
        self.under_way[request] = None
        route = self._route
        if route.reads is _FROM_SOURCE:
            request.sides = SOURCE
            route.source.read(low, request.buffer, 0, request.high - low, self._source_done, request)  # type: ignore[arg-type]
        else:
            request.sides = TARGET
            route.target.read(low, request.buffer, 0, request.high - low, self._target_done, request)  # type: ignore[arg-type]

    def start_from(self, request: Request, side: int, start: int) -> None:
        """Read from this side alone, to `start` of the buffer; ends with ECANCELED where the side leaves meanwhile."""
        request.waiting, request.error = _SECOND, errno.ECANCELED
        self.under_way[request] = None
        self._read_from(request, side, self._source_done if side == SOURCE else self._target_done, start)

    def prefetch(self, request: Request) -> None:
        """Pass the advice on."""
        request.started_tick = self.tick
        request.waiting = 0
        request.sides = SOURCE if self._route.reads is Side.SOURCE else TARGET
        self.under_way[request] = None
        self._route.reader().prefetch(request.offset, request.length, self._advised, request)

    def leave(self, side: int) -> None:
        """Nobody waits for this side any more."""
        undecided, self._undecided = self._undecided, []
        for request in undecided:
            if side == TARGET:
                self._read_from(request, SOURCE, self._source_done)
            else:
                self._answer(request, request.error)  # the authority's
        for request in [each for each in self.under_way if each.sides == side]:
            if request.kind is Kind.CACHE:
                self._advised(request, 0)
            elif request.waiting & _SECOND:
                self._keep_orphan(request, side)
                request.sides = 0
                self._answer(request, request.error)
            else:
                self._read_elsewhere(request, side)

    def _source_done(self, request: Request, error: int) -> None:
        if error or request.sides != SOURCE:
            self._trouble(request, SOURCE, error)
        else:
            self._answer(request, 0)

    def _target_done(self, request: Request, error: int) -> None:
        if error or request.sides != TARGET:
            self._trouble(request, TARGET, error)
        else:
            self._answer(request, 0)

    def _advised(self, request: Request, _error: int) -> None:
        if request.sides:
            request.sides = 0
            self._answer(request, 0)  # advice that nobody takes is no failure

    def _answer(self, request: Request, error: int) -> None:
        del self.under_way[request]
        request.error = error
        request.complete(request)
        if self._waiters:
            self._stillness.look()

    def _stood_in(self, request: Request, error: int) -> None:
        if request.sides != TARGET:
            self._orphans.release(request, TARGET)
        elif error:
            self._failed_to_stand_in(request, Failure.of_request(Side.TARGET, request, error))
        else:
            request.started_tick = self.tick
            self._route.target.flush(self._proved, request)

    def _proved(self, request: Request, error: int) -> None:
        if request.sides != TARGET:
            self._orphans.release(request, TARGET)
        elif error:
            self._failed_to_stand_in(request, Failure.of_flush(Side.TARGET, error))
        else:
            self._answer(request, 0)

    def _failed_to_stand_in(self, request: Request, failure: Failure) -> None:
        request.sides = 0
        self._target_failed(failure)
        self._answer(request, request.error)  # the source's

    def _trouble(self, request: Request, side: int, error: int) -> None:
        if request.sides != side:
            self._orphans.release(request, side)
            return
        request.sides = 0
        if request.waiting & _SECOND or not self._could_other_answer(side):
            self._answer(request, error)
            return
        request.waiting |= _SECOND
        request.error = error
        if side == SOURCE:
            self._listener.source_failed(Failure.of_request(Side.SOURCE, request, error))
            self._read_from(request, TARGET, self._stood_in)
        else:
            self._target_failed(Failure.of_request(Side.TARGET, request, error))
            if self._route.write_sides & TARGET:
                # The source is about to leave, perhaps because it has lost writes: what it gives may be old by now.
                self._undecided.append(request)
            else:
                self._read_from(request, SOURCE, self._source_done)

    def _could_other_answer(self, side: int) -> bool:
        return self._route.in_sync and (side == SOURCE or self._route.write_sides & SOURCE != 0)

    def _read_from(self, request: Request, side: int, done: Done, start: int = 0) -> None:
        buffer = request.buffer
        if buffer is None:
            raise InvariantError("a read came without a buffer")
        request.sides = side
        request.started_tick = self.tick
        device = self._route.source if side == SOURCE else self._route.target
        device.read(request.low, buffer, start, request.high - request.low, done, request)

    def _keep_orphan(self, request: Request, side: int) -> None:
        buffer = request.buffer
        if buffer is not None:
            buffer.retain()
        self._orphans.keep(request, side, buffer)

    def _read_elsewhere(self, request: Request, left: int) -> None:
        buffer = request.buffer
        if buffer is None:
            raise InvariantError("a read came without a buffer")
        request.buffer = buffer.leave_to_successor()
        self._orphans.keep(request, left, buffer)
        if self._route.reads is Side.SOURCE:
            self._read_from(request, SOURCE, self._source_done)
        else:
            self._read_from(request, TARGET, self._target_done)
