"""The order of overlapping writes: of two that overlap, the later one starts when the earlier one is done on every side.

That is how both devices see overlapping writes in the same order (rule R4), and how the copier is kept apart from writes:
it enters a range like a write does, waits for the writes before it, and the writes after it wait for it. Order is the
order of arrival, so neither can starve the other.

Writes are found by region, so that a write is compared only with those in its own regions; most find none. Two that share
many regions are compared in the first of them alone, where one of the two begins: hundreds of trims of gigabytes may be under
way. This file knows ranges, nothing of devices, sides or buffers.
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


class _Crowd:
    """Those in a region that more than one has entered, in order of arrival."""

    __slots__ = ("all", "beginning")

    def __init__(self, first: Ranged, region: int) -> None:
        self.all = [first]
        self.beginning = [first] if first.region == region else []  # in this region, not in one before

    def compared_with(self, entry: Ranged, region: int) -> Sequence[Ranged]:
        """Those with whom an entry shares no region before this one."""
        return self.all if entry.region == region else self.beginning

    def add(self, entry: Ranged, region: int) -> None:
        self.all.append(entry)
        if entry.region == region:
            self.beginning.append(entry)

    def remove(self, entry: Ranged, region: int) -> None:
        self.all.remove(entry)
        if entry.region == region:
            self.beginning.remove(entry)


class WriteOrder:
    """Who may write where, now. Every `enter` is matched by one `leave`, once the write is done everywhere."""

    def __init__(self, region_shift: int) -> None:
        """Count regions of `1 << region_shift` bytes."""
        self._shift = region_shift
        # Region: those in it. Most are alone, and stand for themselves: a crowd would be felt.
        self._rows: dict[int, Ranged | _Crowd] = {}

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
            self._part(each, entry, freed)
        return freed

    @property
    def regions(self) -> Container[int]:
        """The regions in which someone has a place, right now."""
        return self._rows.keys()

    def _join(self, region: int, entry: Ranged) -> None:
        row = self._rows.setdefault(region, entry)
        if row is entry:
            return
        if not isinstance(row, _Crowd):
            row = self._rows[region] = _Crowd(row, region)
        low, high = entry.low, entry.high
        for other in row.compared_with(entry, region):
            if other.low < high and low < other.high:
                entry.blockers += 1
        row.add(entry, region)

    def _part(self, region: int, entry: Ranged, freed: list[Ranged]) -> None:
        # Whoever overlaps and is still here came later: entries part only once they ran, and they ran once all earlier
        # ones had parted.
        row = self._rows[region]
        if not isinstance(row, _Crowd):
            del self._rows[region]
            return
        row.remove(entry, region)
        if not row.all:
            del self._rows[region]
        low, high = entry.low, entry.high
        for other in row.compared_with(entry, region):
            if other.low < high and low < other.high:
                other.blockers -= 1
                if not other.blockers:
                    freed.append(other)
