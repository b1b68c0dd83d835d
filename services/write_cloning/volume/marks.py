"""Which regions may differ between the sides: the region map in memory, as the data path and the copier see it.

A write to a region that is marked already goes on at once; one to a clean region waits until its mark is durable. A mark is
given up only for a region that no write touched through a whole interval, and that was still untouched when flushes of
both sides, begun after that, had succeeded (`begin_aging`, `age_out`). So a region that is written all the time stays
marked, and its writes cost one look at a byte.

It knows no files: whoever writes the map takes the changes by `begin_round` and says `end_round` once they are durable.
Nothing here waits, so nothing here can be overtaken.
"""

from collections.abc import Callable, Container, Iterable
from itertools import islice

from services.write_cloning.volume.requests import Request

# What a region can be, in order of what a write to it costs.
CLEAN = 0  # both sides hold the same, durably
ASKED = 1  # clean on disk; the next round marks it
MARKING = 2  # clean on disk; the round under way marks it
AGING = 3  # marked; not written since the flushes began that may make it clean
COOLING = 4  # marked; not written since it was last looked at
HOT = 5  # marked; written
DUE = 6  # marked; the sides differ until it is copied

AGED_AT_ONCE_MAX = 1 << 16  # regions looked at in one go: some ten milliseconds' work

GoOn = Callable[[Request], None]


class Marks:
    """The regions of one volume. `states` is read by the data path for every write: from `HOT` on it may go on."""

    __slots__ = (
        "_aging",
        "_asked",
        "_changed_pages",
        "_go_on",
        "_regions_per_page",
        "_touched",
        "_waiting_next",
        "_waiting_now",
        "_want_round",
        "bits",
        "is_recording",
        "marks_as_due",
        "states",
    )

    def __init__(
        self,
        region_count: int,
        *,
        due: Iterable[int] = (),
        hot: Iterable[int] = (),
        regions_per_page: int = 1,
        want_round: Callable[[], None] | None = None,
    ) -> None:
        """Begin with marks that are on disk; the other regions are clean. Without `want_round` nothing is recorded."""
        self.states = bytearray(region_count)
        self.bits = bytearray(-(-region_count // 8))
        self.is_recording = want_round is not None
        self.marks_as_due = False  # writes do not reach both sides: what they touch has to be copied
        self._aging: list[int] = []
        self._regions_per_page = regions_per_page
        self._want_round = want_round or _nobody_asks
        self._go_on: GoOn = _go_nowhere
        self._touched: dict[
            int, None
        ] = {}  # marked and not due, the one that was looked at longest ago first
        self._asked: list[int] = []
        self._changed_pages: set[int] = set()
        self._waiting_next: list[Request] = []
        self._waiting_now: list[Request] = []
        for region in hot:
            self._set(region, HOT)
            self._touched[region] = None
        for region in due:
            self._set(region, DUE)
            self._touched.pop(region, None)

    @classmethod
    def of_nothing(cls, region_count: int) -> "Marks":
        """Where nothing is recorded: every region may differ, and no write waits."""
        marks = cls(region_count)
        marks.states = bytearray([DUE]) * region_count
        return marks

    # ------------------------------------------------------------------ for the volume

    def set_go_on(self, go_on: GoOn) -> None:
        """Whom to hand the writes to that waited."""
        self._go_on = go_on

    def admit(self, request: Request) -> bool:
        """Whether the marks of every region of a write are durable. If not, it is handed out by a later `end_round`."""
        states = self.states
        waits_now = waits_next = False
        for region in range(request.region, request.last_region + 1):
            state = states[region]
            if state >= HOT:
                continue
            if state >= AGING:
                states[region] = HOT
            elif state == MARKING:
                waits_now = True
            else:
                waits_next = True
                if state == CLEAN:
                    self._ask(region)
        if waits_next:
            self._waiting_next.append(request)
        elif waits_now:
            self._waiting_now.append(request)
        return not (waits_now or waits_next)

    def _ask(self, region: int) -> None:
        self._set(region, ASKED)
        self._asked.append(region)
        self._change(region)

    # ------------------------------------------------------------------ for the copier

    def is_due(self, region: int) -> bool:
        """Whether the region has to be copied."""
        return self.states[region] == DUE

    def copied(self, region: int) -> None:
        """The region was copied under exclusion: from now on it is like one that was written on both sides."""
        if self.is_recording and self.states[region] == DUE:
            self.states[region] = HOT
            self._touched[region] = None

    # ------------------------------------------------------------------ for whoever writes the map

    def begin_round(self) -> list[int]:
        """The pages that have changed since the last round began; what is asked for from here on is for the next one."""
        for region in self._asked:
            self.states[region] = MARKING
        self._waiting_now += self._waiting_next
        self._waiting_next = []
        pages, self._changed_pages = sorted(self._changed_pages), set()
        return pages

    def end_round(self) -> None:
        """What was changed when the round began is durable: let the writes go on that waited for it."""
        marked, self._asked = (
            [each for each in self._asked if self.states[each] == MARKING],
            [each for each in self._asked if self.states[each] == ASKED],
        )
        for region in marked:
            if self.marks_as_due:
                self.states[region] = DUE
            else:
                self.states[region] = HOT
                self._touched[region] = None
        waiting, self._waiting_now = self._waiting_now, []
        for request in waiting:
            self._go_on(request)

    def give_up(self) -> None:
        """Record nothing any more: every region may differ. Only once nobody would believe the map on disk."""
        self.states[:] = bytes([DUE]) * len(self.states)
        self.is_recording = False
        self._touched.clear()
        self._asked.clear()
        self._changed_pages.clear()
        self._aging.clear()
        waiting = self._waiting_now + self._waiting_next
        self._waiting_now, self._waiting_next = [], []
        for request in waiting:
            self._go_on(request)

    # ------------------------------------------------------------------ growing clean

    def begin_aging(self, busy: Container[int]) -> bool:
        """Take note of the regions that nobody writes; returns whether flushes of both sides could make any of them clean.

        `busy` are those with a write or a copy under way, or waiting for its turn. The flushes begin after this call.
        """
        states = self.states
        looked_at = list(islice(self._touched, AGED_AT_ONCE_MAX))
        self._aging = []
        for region in looked_at:
            del self._touched[region]
            self._touched[region] = None  # now the last in the row
            if region in busy:
                continue
            if states[region] == HOT:
                states[region] = COOLING
            else:
                states[region] = AGING
                self._aging.append(region)
        return bool(self._aging)

    def age_out(self) -> None:
        """Both sides were flushed since `begin_aging`: what was not written meanwhile is clean, on disk whenever that comes."""
        states = self.states
        for region in self._aging:
            if states[region] == AGING:
                self._clean(region)
        self._aging = []
        if self._changed_pages:
            self._want_round()

    def clean_all_but_due(self) -> None:
        """No write was under way when both sides were flushed at the end: only what is still to be copied differs."""
        for region in list(self._touched):
            self._clean(region)

    def _clean(self, region: int) -> None:
        del self._touched[region]
        self.states[region] = CLEAN
        self.bits[region >> 3] &= ~(1 << (region & 7))
        self._changed_pages.add(region // self._regions_per_page)

    def _set(self, region: int, state: int) -> None:
        self.states[region] = state
        self.bits[region >> 3] |= 1 << (region & 7)

    def _change(self, region: int) -> None:
        self._changed_pages.add(region // self._regions_per_page)
        self._want_round()


def _nobody_asks() -> None:
    """Nothing is recorded."""


def _go_nowhere(_request: Request) -> None:
    """No volume has these marks: no write waits."""
