"""Keeps one thing that happens again and again from filling the log: so many lines of a kind in so long, then a count."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)

LINES_MAX = 20  # of one kind…
WINDOW_S = 10.0  # …in so long
KINDS_MAX = 4096  # that are remembered; beyond that the one that was seen first is forgotten


@dataclass(slots=True)
class _Window:
    began_s: float
    lines: int = 0
    left_out: int = 0


class Flood(Generic[Kind]):
    """The kinds of lines that were written lately. It is told the time, on any clock that only goes on."""

    def __init__(self) -> None:
        self._windows: OrderedDict[Kind, _Window] = OrderedDict()
        self._leaving_out: set[Kind] = set()

    def admits(self, kind: Kind, now_s: float) -> bool:
        """Whether a line of this kind is written; if not, it is counted."""
        window = self._windows.get(kind)
        if window is None or now_s - window.began_s >= WINDOW_S:
            window = self._begin(kind, now_s)
        if window.lines < LINES_MAX:
            window.lines += 1
            return True
        window.left_out += 1
        self._leaving_out.add(kind)
        return False

    def left_out(self, now_s: float | None = None) -> list[tuple[Kind, int]]:
        """Kinds whose lines were left out until their time was over, and how many; each is told once. No time: all of them."""
        over = [
            kind
            for kind in self._leaving_out
            if now_s is None or now_s - self._windows[kind].began_s >= WINDOW_S
        ]
        self._leaving_out.difference_update(over)
        return [(kind, self._windows.pop(kind).left_out) for kind in over]

    def _begin(self, kind: Kind, now_s: float) -> _Window:
        if len(self._windows) >= KINDS_MAX:
            oldest, _ = self._windows.popitem(last=False)
            self._leaving_out.discard(oldest)
        self._windows.pop(kind, None)  # so that the order is that of their beginning
        window = self._windows[kind] = _Window(now_s)
        return window
