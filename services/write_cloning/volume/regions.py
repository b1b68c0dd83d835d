"""What a volume says of its regions: where the sides are known to hold the same, as the context `cutover:region` tells it."""

from collections.abc import Callable, Sequence

RegionStatus = Callable[[int, int], Sequence[tuple[int, int]]]
"""Lengths and flags of a range."""

REGION_DIFFERS = 1  # the only flag: the sides are not known to hold the same


def everything_in_sync(_offset: int, length: int) -> Sequence[tuple[int, int]]:
    """Both sides hold the same everywhere."""
    return [(length, 0)]


def nothing_in_sync(_offset: int, length: int) -> Sequence[tuple[int, int]]:
    """Nowhere are both sides known to hold the same."""
    return [(length, REGION_DIFFERS)]
