"""The order of overlapping writes: of two that overlap, the later one starts when the earlier one is done on every side.

That is how both devices see overlapping writes in the same order (rule R4), and how the copier is kept apart from writes:
it enters a range like a write does, waits for the writes before it, and the writes after it wait for it. Order is the
order of arrival, so neither can starve the other.

Writes are found by region, so that a write is compared only with those in its own regions; most find none. This file knows
ranges, nothing of devices, sides or buffers.
"""

from collections.abc import Sequence
from typing import Protocol

NOBODY: Sequence["Ranged"] = ()


class Ranged(Protocol):
    """What has a place in the order: bytes `low` to `high`, and room for the order's own notes."""

    low: int
    high: int
    region: int
    last_region: int
    blockers: int


class WriteOrder:
    """Who may write where, now. Every `enter` is matched by one `leave`, once the write is done everywhere."""

    def __init__(self, region_shift: int) -> None:
        """Count regions of `1 << region_shift` bytes."""
        self._shift = region_shift
        self._rows: dict[int, list[Ranged]] = {}  # region: those in it, in order of arrival

    def enter(self, entry: Ranged) -> bool:
        """Take a place. True: go on; False: a later `leave` will hand the entry out. Hot: called for every write."""
        shift = self._shift
        region = entry.low >> shift
        last = entry.high - 1 >> shift
        entry.region = region
        entry.last_region = last
        entry.blockers = 0
        if region == last:
            row = self._rows.get(region)
            if row is None:
                self._rows[region] = [entry]
                return True
            return self._join(row, entry)
        may_go = True
        for each in range(region, last + 1):
            may_go = self._join(self._rows.setdefault(each, []), entry) and may_go
        return may_go

    def leave(self, entry: Ranged) -> Sequence[Ranged]:
        """Give the place up; returns those that may go on now. Hot: called for every write."""
        region = entry.region
        if region == entry.last_region:
            row = self._rows[region]
            if len(row) == 1:
                del self._rows[region]
                return NOBODY
            return self._part(row, entry)
        freed: list[Ranged] = []
        for each in range(region, entry.last_region + 1):
            row = self._rows[each]
            freed.extend(self._part(row, entry))
            if not row:
                del self._rows[each]
        return freed

    @staticmethod
    def _join(row: list[Ranged], entry: Ranged) -> bool:
        # A pair that shares several regions is counted once in each, when it joins and again when it parts.
        low, high = entry.low, entry.high
        blockers = 0
        for other in row:
            if other.low < high and low < other.high:
                blockers += 1
        row.append(entry)
        entry.blockers += blockers
        return not blockers

    @staticmethod
    def _part(row: list[Ranged], entry: Ranged) -> list[Ranged]:
        # Whoever overlaps and is still here came later: entries part only once they ran, and they ran once all earlier
        # ones had parted.
        row.remove(entry)
        low, high = entry.low, entry.high
        freed = []
        for other in row:
            if other.low < high and low < other.high:
                other.blockers -= 1
                if not other.blockers:
                    freed.append(other)
        return freed
