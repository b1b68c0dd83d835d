"""Which regions may differ between the sides: the region map in memory, as the data path and the copier see it.

A write to a region that is marked already goes on at once; one to a clean region waits until its mark is durable. A mark is
given up only for a region that no write touched through a whole interval, and that was still untouched when flushes of
both sides, begun after that, had succeeded (`begin_aging`, `age_out`). So a region that is written all the time stays
marked, and its writes cost one look at a byte.

It knows no files: whoever writes the map takes the changes by `begin_round` and says `end_round` once they are durable.
Nothing here waits, so nothing here can be overtaken.
"""

from collections.abc import Callable, Container

from services.write_cloning.volume.requests import Request

# What a region can be, in order of what a write to it costs.
CLEAN = 0  # both sides hold the same, durably
ASKED = 1  # clean on disk; the next round marks it
MARKING = 2  # clean on disk; the round under way marks it
AGING = 3  # marked; not written since the flushes began that may make it clean
COOLING = 4  # marked; not written since it was last looked at
HOT = 5  # marked; written
DUE = 6  # marked; the sides differ until it is copied

# Regions looked at in one go, and how far is looked for them: some ten milliseconds' work.
AGED_AT_ONCE_MAX = 1 << 15
SCANNED_AT_ONCE_MAX = 1 << 22

_GROWING_CLEAN = bytes(state in {AGING, COOLING, HOT} for state in range(256))
_AS_DIGITS = b"0" + b"1" * 255
_ONLY_DUE = bytes(DUE if state == DUE else CLEAN for state in range(256))

_WRITTEN = (
    HOT,
    COOLING,
    AGING,
    MARKING,
    ASKED,
)  # looked for one by one: finding a byte is a hundred times faster than a loop

GoOn = Callable[[Request], None]


class Marks:
    """The regions of one volume. `states` is read by the data path for every write: from `HOT` on it may go on."""

    __slots__ = (
        "_aging",
        "_asked",
        "_changed_pages",
        "_cursor",
        "_go_on",
        "_regions_per_page",
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
        bits: bytes | bytearray,
        *,
        state: int,
        regions_per_page: int = 1,
        want_round: Callable[[], None] | None = None,
    ) -> None:
        """Begin with marks that are on disk: what is set is `HOT` or `DUE`. Without `want_round` nothing is recorded."""
        self.states = _states_of(bits, region_count, state)
        self.bits = bytearray(bits)
        self.is_recording = want_round is not None
        self.marks_as_due = False  # writes do not reach both sides: what they touch has to be copied
        self._aging: list[int] = []
        self._regions_per_page = regions_per_page
        self._want_round = want_round or _nobody_asks
        self._go_on: GoOn = _go_nowhere
        self._cursor = 0  # where to look next for regions that grow clean
        self._asked: list[int] = []
        self._changed_pages: set[int] = set()
        self._waiting_next: list[Request] = []
        self._waiting_now: list[Request] = []

    @classmethod
    def of_nothing(cls, region_count: int) -> "Marks":
        """Where nothing is recorded: every region may differ, and no write waits."""
        marks = cls(region_count, bytes(-(-region_count // 8)), state=DUE)
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

    def is_written_in(self, begin: int, end: int) -> bool:
        """Whether any of these regions was written on both sides, and is not known to be clean again."""
        return any(self.states.find(state, begin, end) >= 0 for state in _WRITTEN)

    def is_clean_in(self, begin: int, end: int) -> bool:
        """Whether all of these regions are clean."""
        return self.states.find(DUE, begin, end) < 0 and not self.is_written_in(begin, end)

    def is_due(self, region: int) -> bool:
        """Whether the region has to be copied."""
        return self.states[region] == DUE

    def copied(self, region: int) -> None:
        """The region was copied under exclusion: from now on it is like one that was written on both sides."""
        if self.is_recording and self.states[region] == DUE:
            self.states[region] = HOT

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
            self.states[region] = DUE if self.marks_as_due else HOT
        waiting, self._waiting_now = self._waiting_now, []
        for request in waiting:
            self._go_on(request)

    def give_up(self) -> None:
        """Record nothing any more: every region may differ. Only once nobody would believe the map on disk."""
        self.states[:] = bytes([DUE]) * len(self.states)
        self.is_recording = False
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
        self._aging = []
        for region in self._next_to_look_at():
            if region in busy:
                continue
            if states[region] == HOT:
                states[region] = COOLING
            else:
                states[region] = AGING
                self._aging.append(region)
        return bool(self._aging)

    def _next_to_look_at(self) -> list[int]:
        """The next regions, in order and then from the beginning again, that could grow clean."""
        begin = self._cursor
        window = self.states[begin : begin + SCANNED_AT_ONCE_MAX].translate(_GROWING_CLEAN)
        found: list[int] = []
        at = window.find(1)
        while at >= 0 and len(found) < AGED_AT_ONCE_MAX:
            found.append(begin + at)
            at = window.find(1, at + 1)
        end = begin + (at if at >= 0 else len(window))
        self._cursor = end if end < len(self.states) else 0
        return found

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
        self.states[:] = self.states.translate(_ONLY_DUE)
        self.bits[:] = _bits_of(self.states)
        self._changed_pages.update(range(-(-len(self.states) // self._regions_per_page)))

    def _clean(self, region: int) -> None:
        self.states[region] = CLEAN
        self.bits[region >> 3] &= ~(1 << (region & 7))
        self._changed_pages.add(region // self._regions_per_page)

    def _set(self, region: int, state: int) -> None:
        self.states[region] = state
        self.bits[region >> 3] |= 1 << (region & 7)

    def _change(self, region: int) -> None:
        self._changed_pages.add(region // self._regions_per_page)
        self._want_round()


def _states_of(bits: bytes | bytearray, region_count: int, state: int) -> bytearray:
    """A state for each region: `state` where its bit is set. By way of a number's digits, which takes no loop."""
    digits = f"{int.from_bytes(bits, 'little'):0{region_count}b}".encode()
    table = bytearray(256)
    table[ord("1")] = state
    return bytearray(digits[::-1][:region_count].translate(table))


def _bits_of(states: bytearray) -> bytes:
    """The opposite: a bit for each region, set unless it is clean."""
    return int(states.translate(_AS_DIGITS)[::-1] or b"0", 2).to_bytes(-(-len(states) // 8), "little")


def _nobody_asks() -> None:
    """Nothing is recorded."""


def _go_nowhere(_request: Request) -> None:
    """No volume has these marks: no write waits."""
