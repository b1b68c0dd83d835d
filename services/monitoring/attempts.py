"""The log of who logs in, and who tried with a wrong token: somebody may be guessing.

However many try, there is one line a second at most, and every attempt is counted in one.
"""

import logging
from collections.abc import Callable

from shared.plain import plain, shortened

log = logging.getLogger(__name__)

BETWEEN_LINES_S = 1.0  # of wrong tokens
UNKNOWN_PEER = "an unknown address"

Later = Callable[[float, Callable[[], None]], object]
"""Has something called after so many seconds, as a loop does."""


class Attempts:
    """Those of one page."""

    def __init__(self, later: Later) -> None:
        """Nobody has tried yet."""
        self._later = later
        self._is_quiet = False  # a line was written lately
        self._left_out = 0
        self._last_peer = ""

    def succeeded(self, peer: str | None) -> None:
        """Somebody has logged in."""
        log.info("somebody at %s has logged in, and may give commands", _shown(peer))

    def failed(self, peer: str | None) -> None:
        """Somebody has shown a wrong token, or none."""
        if self._is_quiet:
            self._left_out += 1
            self._last_peer = _shown(peer)
            return
        log.warning("a log-in from %s was turned away: that is not the access token", _shown(peer))
        self._be_quiet()

    def _be_quiet(self) -> None:
        self._is_quiet = True
        self._later(BETWEEN_LINES_S, self._tell_left_out)

    def _tell_left_out(self) -> None:
        self._is_quiet = False
        if not self._left_out:
            return
        log.warning("log-ins turned away since: %d, the last from %s", self._left_out, self._last_peer)
        self._left_out = 0
        self._be_quiet()


def _shown(peer: str | None) -> str:
    """Behind a proxy it is what the proxy tells, so it may be any text."""
    return plain(shortened(peer)) if peer else UNKNOWN_PEER
