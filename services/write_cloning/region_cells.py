"""The picture of a migration's regions that monitors are told: a letter for each share of the volume, the worst that is in it.

A volume may have many millions of regions, and the loop waits while they are looked at: so a look takes in a bounded number of
them, and goes on where the last one stopped. It changes nothing of what it looks at.
"""

from services.write_cloning.copier import Copier
from services.write_cloning.volume.marks import Marks
from shared.messages.status import RegionCell
from shared.migration.devices import Side
from shared.migration.states import IN_SYNC_STATES, State

CELLS_MAX = 256
LOOKED_AT_ONCE_MAX = 1 << 22  # regions: some milliseconds' work

_UNREADABLE, _COPYING, _DIFFERING, _DIRTY, _IN_SYNC = (cell.value for cell in RegionCell)


class RegionCells:
    """Of one migration."""

    def __init__(self, region_count: int) -> None:
        """Begin with nothing known to be the same."""
        self._region_count = region_count
        self._count = min(CELLS_MAX, region_count)
        self._cells = [_DIFFERING] * self._count
        self._next = 0
        self._of: object = None  # what the cells were looked at in

    def look(self, state: State, authority: Side, marks: Marks, copier: Copier | None) -> str:
        """The picture as of now; of a very large volume partly as of a few looks ago."""
        if authority is Side.TARGET or not self._count:
            return ""
        looking_at = (state, marks, copier)
        if looking_at != self._of:  # what was seen before says nothing of this
            self._cells = [_IN_SYNC if state in IN_SYNC_STATES else _DIFFERING] * self._count
            self._of = looking_at
        at_work = {self._cell_of(region) for region in copier.at_work} if copier is not None else set()
        for cell in self._next_cells():
            begin, end = self._begin(cell), self._begin(cell + 1)
            if copier is not None and state is State.SYNCING:
                self._cells[cell] = _while_copied(copier, marks, begin, end)
            elif state in IN_SYNC_STATES:
                self._cells[cell] = _DIRTY if marks.is_written_in(begin, end) else _IN_SYNC
            else:
                self._cells[cell] = _IN_SYNC if marks.is_clean_in(begin, end) else _DIFFERING
        return self._with(at_work)

    def _with(self, at_work: set[int]) -> str:
        if not at_work:
            return "".join(self._cells)
        cells = list(self._cells)
        for cell in at_work:
            if cells[cell] != _UNREADABLE:
                cells[cell] = _COPYING
        return "".join(cells)

    def _next_cells(self) -> range | list[int]:
        """The cells to look at now: all, or as many as there may be regions in them."""
        per_cell = -(-self._region_count // self._count)
        count = max(1, LOOKED_AT_ONCE_MAX // per_cell)
        if count >= self._count:
            return range(self._count)
        first, self._next = self._next, (self._next + count) % self._count
        return [(first + at) % self._count for at in range(count)]

    def _begin(self, cell: int) -> int:
        return cell * self._region_count // self._count

    def _cell_of(self, region: int) -> int:
        """The cell whose share has the region: the inverse of `_begin`."""
        return ((region + 1) * self._count - 1) // self._region_count


def _while_copied(copier: Copier, marks: Marks, begin: int, end: int) -> str:
    if copier.is_unreadable_in(begin, end):
        return _UNREADABLE
    if not copier.is_synced_in(begin, end):
        return _DIFFERING
    return _DIRTY if marks.is_written_in(begin, end) else _IN_SYNC
