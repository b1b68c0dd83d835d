"""The order of overlapping writes: whoever overlaps waits for all before it, and nobody is compared more often than need be."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from services.write_cloning.volume.ordering import WriteOrder

REGION_SHIFT = 4
END = 160


class Write:
    """What has a place in the order; counts how often anybody looks where it begins."""

    looks = 0

    def __init__(self, low: int, high: int) -> None:
        self._low = low
        self.high = high
        self.region = self.last_region = self.blockers = 0

    @property
    def low(self) -> int:
        Write.looks += 1
        return self._low

    def overlaps(self, other: "Write") -> bool:
        return self.low < other.high and other.low < self.high


ranges = st.tuples(st.integers(0, END - 1), st.integers(1, END)).map(
    lambda drawn: (drawn[0], min(END, drawn[0] + drawn[1]))
)


def _unblocked(present: list[Write]) -> Iterator[Write]:
    """Those that may run: none that came before them, and is still there, overlaps."""
    for at, write in enumerate(present):
        if not any(write.overlaps(earlier) for earlier in present[:at]):
            yield write


@given(steps=st.lists(st.one_of(ranges, st.integers(0, 20)), max_size=60))
def test_who_may_run_is_who_overlaps_nobody_before(steps: list[tuple[int, int] | int]) -> None:
    order = WriteOrder(REGION_SHIFT)
    present: list[Write] = []
    running: list[Write] = []
    for step in steps:
        if isinstance(step, tuple):
            write = Write(*step)
            present.append(write)
            if order.enter(write):
                running.append(write)
        elif running:
            ended = running.pop(step % len(running))
            present.remove(ended)
            running.extend(order.leave(ended))
        assert sorted(map(id, running)) == sorted(map(id, _unblocked(present)))
        shift = REGION_SHIFT
        assert set(order.regions) == {  # type: ignore[call-overload] # a view of keys
            region
            for write in present
            for region in range(write._low >> shift, (write.high - 1 >> shift) + 1)
        }


def test_wide_writes_are_compared_once_not_once_a_region() -> None:
    order = WriteOrder(REGION_SHIFT)
    count, regions = 40, 500
    writes = [Write(0, regions << REGION_SHIFT) for _ in range(count)]
    Write.looks = 0
    running = [write for write in writes if order.enter(write)]
    while running:
        running.extend(order.leave(running.pop()))
    assert Write.looks <= 4 * (count * count + count * regions)
