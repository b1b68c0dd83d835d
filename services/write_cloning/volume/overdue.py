"""Requests that a device has had for too long. Time is counted in ticks: a clock for each request would be felt.

A request that a device does in many instalments, as zeroes that it has to write, is not overdue while instalments are done.
"""

from collections.abc import Mapping

from services.write_cloning.volume.failover import Failover
from services.write_cloning.volume.reads import Reads
from services.write_cloning.volume.requests import Request
from services.write_cloning.volume.route import SOURCE, TARGET, Route
from shared.migration.devices import Side


class Overdue:
    """Looks for them in one volume. `reads.tick` is stamped on each request when it starts, on writes as well."""

    def __init__(
        self, route: Route, active: Mapping[Request, None], reads: Reads, failover: Failover
    ) -> None:
        """`active` are the writes and flushes under way, oldest first."""
        self._route = route
        self._active = active
        self._reads = reads
        self._failover = failover
        self._went_on: dict[tuple[Request, int], int] = {}  # when a side was last done with an instalment

    def source_went_on(self, request: Request) -> None:
        """The source is done with one of several instalments."""
        self._went_on[request, SOURCE] = self._reads.tick

    def target_went_on(self, request: Request) -> None:
        """The target is."""
        self._went_on[request, TARGET] = self._reads.tick

    def count(self) -> int:
        """One more tick of the caller's has passed; returns how many."""
        self._reads.tick += 1
        self._went_on = {key: tick for key, tick in self._went_on.items() if key[0] in self._active}
        return self._reads.tick

    def on_target(self, since_tick: int) -> Request | None:
        """A request that the target has had since before `since_tick`, while another side could do without it."""
        if not self._route.write_sides & SOURCE:
            return None
        for request in self._active:
            if request.waiting & TARGET and self._was_last_seen(request, TARGET) < since_tick:
                return request
        for request in self._reads.under_way:
            if request.sides == TARGET and request.started_tick < since_tick:
                return request
        return None

    def on_source(self, since_tick: int) -> Request | None:
        """A request that the source has had since before `since_tick`, while the authority could move away from it."""
        route = self._route
        if self._failover.withheld or route.reads is Side.SOURCE or not route.write_sides & SOURCE:
            return None
        for request in self._active:
            if request.waiting & SOURCE and self._was_last_seen(request, SOURCE) < since_tick:
                return request
        for request in self._reads.under_way:  # around a write of parts of blocks
            if request.sides == SOURCE and request.started_tick < since_tick:
                return request
        return None

    def _was_last_seen(self, request: Request, side: int) -> int:
        return max(request.started_tick, self._went_on.get((request, side), 0))
