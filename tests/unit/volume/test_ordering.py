"""The order of overlapping writes: whoever overlaps waits for all before it, and nobody is compared more often than need be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.write_cloning.volume.ordering import Ranged, WriteOrder

REGION_SHIFT = 4
END = 160


class Place(int):
    """An offset that counts how often any is compared with another."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        Place.compared += 1
        return super().__lt__(other)


@dataclass(slots=True, eq=False)
class Write:
    """What has a place in the order."""

    low: int
    high: int
    region: int = 0
    last_region: int = 0
    blockers: int = 0


ranges = st.tuples(st.integers(0, END - 1), st.integers(1, END)).map(
    lambda drawn: (drawn[0], min(END, drawn[0] + drawn[1]))
)


def _unblocked(present: Sequence[Ranged]) -> Iterator[Ranged]:
    """Those that may run: none that came before them, and is still there, overlaps."""
    for at, write in enumerate(present):
        if not any(write.low < earlier.high and earlier.low < write.high for earlier in present[:at]):
            yield write


@given(steps=st.lists(st.one_of(ranges, st.integers(0, 20)), max_size=60))
def test_who_may_run_is_who_overlaps_nobody_before(steps: list[tuple[int, int] | int]) -> None:
    order = WriteOrder(REGION_SHIFT)
    present: list[Ranged] = []
    running: list[Ranged] = []
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
        assert {region for region in range(END) if region in order.regions} == {
            region for write in present for region in range(write.low >> shift, (write.high - 1 >> shift) + 1)
        }


def test_wide_writes_are_compared_once_not_once_a_region() -> None:
    order = WriteOrder(REGION_SHIFT)
    count, regions = 40, 500
    writes = [Write(Place(0), regions << REGION_SHIFT) for _ in range(count)]
    Place.compared = 0
    running: list[Ranged] = [write for write in writes if order.enter(write)]
    while running:
        running.extend(order.leave(running.pop()))
    assert count <= Place.compared <= 4 * (count * count + count * regions)
