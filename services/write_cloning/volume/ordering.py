"""The order of overlapping writes: of two that overlap, the later one starts when the earlier one is done on every side.

That is how both devices see overlapping writes in the same order (rule R4), and how the copier is kept apart from writes:
it enters a range like a write does, waits for the writes before it, and the writes after it wait for it. Order is the
order of arrival, so neither can starve the other.

Writes are found by region, so that a write is compared only with those in its own regions; most find none. This file knows
ranges, nothing of devices, sides or buffers.
"""

from collections.abc import Container, Sequence
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
        # Region: those in it, in order of arrival. Most are alone, and stand for themselves: a list would be felt.
        self._rows: dict[int, Ranged | list[Ranged]] = {}

    def enter(self, entry: Ranged) -> bool:
        """Take a place. True: go on; False: a later `leave` will hand the entry out. Hot: called for every write."""
        shift = self._shift
        region = entry.low >> shift
        last = entry.high - 1 >> shift
        entry.region = region
        entry.last_region = last
        entry.blockers = 0
        if region == last and self._rows.setdefault(region, entry) is entry:
            return True
        for each in range(region, last + 1):
            self._join(each, entry)
        return not entry.blockers

    def leave(self, entry: Ranged) -> Sequence[Ranged]:
        """Give the place up; returns those that may go on now. Hot: called for every write."""
        region = entry.region
        last = entry.last_region
        if region == last and self._rows[region] is entry:
            del self._rows[region]
            return NOBODY
        freed: list[Ranged] = []
        for each in range(region, last + 1):
            freed.extend(self._part(each, entry))
        return freed

    @property
    def regions(self) -> Container[int]:
        """The regions in which someone has a place, right now."""
        return self._rows.keys()

    def _join(self, region: int, entry: Ranged) -> None:
        # A pair that shares several regions is counted once in each, when it joins and again when it parts.
        row = self._rows.setdefault(region, entry)
        if row is entry:
            return
        if not isinstance(row, list):
            row = self._rows[region] = [row]
        low, high = entry.low, entry.high
        for other in row:
            if other.low < high and low < other.high:
                entry.blockers += 1
        row.append(entry)

    def _part(self, region: int, entry: Ranged) -> list[Ranged]:
        # Whoever overlaps and is still here came later: entries part only once they ran, and they ran once all earlier
        # ones had parted.
        row = self._rows[region]
        if not isinstance(row, list):
            del self._rows[region]
            return []
        row.remove(entry)
        if not row:
            del self._rows[region]
        low, high = entry.low, entry.high
        freed = []
        for other in row:
            if other.low < high and low < other.high:
                other.blockers -= 1
                if not other.blockers:
                    freed.append(other)
        return freed
