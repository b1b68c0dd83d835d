"""systemd's notification protocol (sd_notify(3)): one datagram of `KEY=value` lines to the socket that the environment names.

It must not know what a service is; nobody listens unless NOTIFY_SOCKET says so, and then nothing is sent.
"""

import logging
import socket
from collections.abc import MutableMapping

_log = logging.getLogger(__name__)

_PATIENCE_S = 0.2  # the manager reads at once, or is not well; the loop does not wait for that
_BEATS = 2  # the watchdog is told so often in the time that it allows (sd_watchdog_enabled(3))


class Notifier:
    """Where datagrams go."""

    def __init__(self, address: str = "") -> None:
        """`address` is a path, or an abstract name behind an `@`; empty where nobody listens."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def send(self, *lines: str) -> None:
        """Tell; one that cannot be told is no reason to stop. No value, wherever it is from, can begin a line of its own."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
                telling.settimeout(_PATIENCE_S)
                telling.sendto("\n".join(map(_one_line, lines)).encode(errors="replace"), self._address)
        except OSError as error:
            _log.warning("systemd was not told %s: %s", lines[0], error)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def take_notifier(environment: MutableMapping[str, str]) -> Notifier:
    """The notifier that the environment names. The variable is removed, so that no child speaks for this process."""
    return Notifier(environment.pop("NOTIFY_SOCKET", ""))


def take_watchdog_interval_s(environment: MutableMapping[str, str], pid: int) -> float | None:
    """How often the manager wants a sign of life of this process; None where it wants none. Removed likewise."""
    microseconds = environment.pop("WATCHDOG_USEC", "")
    meant_for = environment.pop("WATCHDOG_PID", str(pid))
    if not microseconds.isdecimal() or int(microseconds) == 0 or meant_for != str(pid):
        return None
    return int(microseconds) / 1e6 / _BEATS
