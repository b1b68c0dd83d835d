"""How fast things went of late: rates from the differences of a host's counters, over the times in its messages. Pure."""

from collections import deque
from dataclasses import dataclass, replace

from services.monitoring.times import seconds_of
from shared.messages.status import HostView

POINTS_MAX = 180  # three minutes, at a message a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The rates of one moment; None where nobody can tell. Latencies are None as well where no request was sampled."""

    at: float  # seconds since 1970, by the host's clock
    copy_bytes_per_s: float | None = None
    reads_per_s: float | None = None
    writes_per_s: float | None = None
    read_bytes_per_s: float | None = None
    write_bytes_per_s: float | None = None
    read_latency_s: float | None = None
    write_latency_s: float | None = None


_NOT_KNOWN = Point(at=0.0)
_AT_REST = Point(
    at=0.0,
    copy_bytes_per_s=0.0,
    reads_per_s=0.0,
    writes_per_s=0.0,
    read_bytes_per_s=0.0,
    write_bytes_per_s=0.0,
)


class Series:
    """That of one migration in one run of its host."""

    def __init__(self) -> None:
        """Begin with no message heard."""
        self.points: deque[Point] = deque(maxlen=POINTS_MAX)
        self._last: HostView | None = None

    def add(self, view: HostView) -> None:
        """Take the next message. Counters that went back began anew: nothing is said of the time before."""
        last, self._last = self._last, view
        at = seconds_of(view.at)
        if last is None or (last.uuid, last.run) != (view.uuid, view.run) or _went_back(last, view):
            self.points.clear()
            return
        passed_s = at - seconds_of(last.at)
        if passed_s > 0:
            self.points.append(_point(view, at, last, passed_s))

    def rest(self) -> bool:
        """The host can be heard and says nothing, so nothing moves: note that, where the last point says otherwise."""
        last = self.last
        if last is not None and (last.copy_bytes_per_s, last.reads_per_s, last.writes_per_s) == (0, 0, 0):
            return False
        return self._note(_AT_REST)

    def lose(self) -> bool:
        """The host cannot be heard, so nobody knows what moves: leave a gap, where there is none yet."""
        return not self.is_lost and self._note(_NOT_KNOWN)

    def _note(self, point: Point) -> bool:
        if self._last is None:
            return False
        before = self.points[-1].at if self.points else seconds_of(self._last.at)
        self.points.append(replace(point, at=before + 1))
        return True

    @property
    def is_lost(self) -> bool:
        """Whether nobody knows what moves now."""
        return self.last is not None and self.last.reads_per_s is None

    @property
    def last(self) -> Point | None:
        """The newest point."""
        return self.points[-1] if self.points else None


def _went_back(last: HostView, view: HostView) -> bool:
    return (
        view.application_reads < last.application_reads or view.application_writes < last.application_writes
    )


def _point(view: HostView, at: float, since: HostView, passed_s: float) -> Point:
    return Point(
        at=at,
        copy_bytes_per_s=view.rate_bytes_per_s,
        reads_per_s=(view.application_reads - since.application_reads) / passed_s,
        writes_per_s=(view.application_writes - since.application_writes) / passed_s,
        read_bytes_per_s=(view.application_read_bytes - since.application_read_bytes) / passed_s,
        write_bytes_per_s=(view.application_write_bytes - since.application_write_bytes) / passed_s,
        read_latency_s=view.application_read_latency.mean_s if view.application_read_latency else None,
        write_latency_s=view.application_write_latency.mean_s if view.application_write_latency else None,
    )
