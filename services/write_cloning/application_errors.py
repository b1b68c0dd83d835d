"""What the application was told of its devices' errors since its volume was opened: how often, the first and the last of them.

Nothing is decided on it: a side that alone is in use has no other to go on with, so its errors are the application's, and no
fault either. It is for whoever looks after the volume. Only requests that fail come here, however many: each costs a few
assignments, and no line in the log but one a minute.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from services.write_cloning.volume.failures import Failure
from shared.clock import Clock
from shared.logs.about import about
from shared.messages.status import ApplicationErrorsView, RequestErrorView
from shared.migration.devices import Side
from shared.migration.telling import fault_words

log = logging.getLogger(__name__)

LOG_EVERY_S = 60.0
RECENT_S = 3600.0
"""For so long after the last error somebody should still look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenDevice:
    """A remote device that the application's requests depend on, and whose connection is gone for good."""

    side: Side
    name: str
    has_equal: bool = False  # the other side is in sync, and answers its reads


class ApplicationErrors:
    """Those of one volume."""

    def __init__(self, name: str, host: str, clock: Clock, seconds: Callable[[], float]) -> None:
        """Begin with none. `seconds` is a time that only grows; `clock` tells people when something was."""
        self._name = name
        self._host = host
        self._clock = clock
        self._seconds = seconds
        self._counts = dict.fromkeys(Side, 0)
        self._first: RequestErrorView | None = None
        self._last: RequestErrorView | None = None
        self._last_s = 0.0
        self._log_again_s = float("-inf")
        self._unlogged = 0

    def note(self, failure: Failure) -> None:
        """A request of the application was answered with a device's error."""
        self._last_s = self._seconds()
        self._last = RequestErrorView(
            side=failure.side,
            operation=failure.operation,
            cause=failure.cause,
            errno=failure.errno,
            offset=failure.offset,
            length=failure.length,
            at=self._clock.now_rfc3339(),
        )
        self._first = self._first or self._last
        self._counts[failure.side] += 1
        self._unlogged += 1
        if self._last_s >= self._log_again_s:
            self._log(self._last)

    def _log(self, last: RequestErrorView) -> None:
        more = "" if self._unlogged == 1 else f"{self._unlogged} since the last line like this; "
        log.error("the application gets errors: %s%s", more, _words(last), extra=about(self._name))
        self._log_again_s = self._last_s + LOG_EVERY_S
        self._unlogged = 0

    def view(self) -> ApplicationErrorsView | None:
        """What there was; None where there was nothing."""
        if self._first is None or self._last is None:
            return None
        return ApplicationErrorsView(
            of_source=self._counts[Side.SOURCE],
            of_target=self._counts[Side.TARGET],
            first=self._first,
            last=self._last,
        )

    def trouble(self, broken: BrokenDevice | None) -> str:
        """What an operator should know now, in sentences; empty where there is nothing, or where it is long over."""
        is_recent = self._last is not None and self._seconds() - self._last_s < RECENT_S
        if broken is None:
            return f"{self._name}: the application gets errors: {self._told()}." if is_recent else ""
        told = self._told()
        errors = (
            f"the application gets errors: {told}. The" if told else "the application will get errors: the"
        )
        way_out = f"see to its server, then restart the write cloning service of host {self._host}"
        if broken.has_equal:
            way_out = f"`cutover select-target {self._name}` goes on with the target, while no write has failed; or {way_out}"
        return (
            f"{self._name}: {errors} connection to {broken.name}, its {broken.side}, is broken, and is never made again by "
            f"itself: {way_out}."
        )

    def _told(self) -> str:
        first, last, count = self._first, self._last, sum(self._counts.values())
        if first is None or last is None:
            return ""
        if count == 1:
            return f"1 request failed, at {last.at}: {_words(last)}"
        return f"{count} requests failed since {first.at}, the last at {last.at}: {_words(last)}"


def _words(error: RequestErrorView) -> str:
    return f"{error.side} {fault_words(error.operation, error.cause, error.offset)}"
