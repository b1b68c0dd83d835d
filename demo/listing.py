"""The application's own list of what was acknowledged, read again for the proof."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Mark:
    """A moment in the list: what had been acknowledged of each block, and the number of the next write to be sent."""

    next_sequence: int
    acknowledged: Mapping[int, int]


@dataclass(slots=True)
class Listing:
    """What the list says at its end, and at each mark."""

    acknowledged: dict[int, int] = field(default_factory=dict)  # the last write of each block
    marks: dict[str, Mark] = field(default_factory=dict)
    writes: int = 0
    flushes: int = 0


def read_listing(lines: Iterable[str]) -> Listing:
    """Fold the lines in their order, which is the order of the acknowledgements."""
    listing = Listing()
    for line in lines:
        kind, *words = line.split()
        if kind == "w":
            listing.acknowledged[int(words[0])] = int(words[1])
            listing.writes += 1
        elif kind == "f":
            listing.flushes += 1
        elif kind == "m":
            listing.marks[words[0]] = Mark(int(words[1]), dict(listing.acknowledged))
        else:
            raise ValueError(f"the list has an unknown line: {line!r}")
    return listing
