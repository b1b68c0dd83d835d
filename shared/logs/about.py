"""What a log line is about: a migration, its attempt, the host that has it; and what is the same for all lines of a process.

The latter is the process's own, like its log: whoever serves says once who it is, and no line has to be told.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Which attempt a migration is in, and which host has it, as far as this process knows."""

    attempt: int | None = None
    host: str = ""


@dataclass(slots=True)
class Process:
    """What all lines have in common, and how this process knows where a migration is."""

    service: str = ""
    host: str = ""
    run: int | None = None
    whereabouts: Callable[[str], Whereabouts] | None = None


PROCESS = Process()
"""This process."""


def about(migration: str, attempt: int | None = None, *, host: str = "") -> dict[str, object]:
    """The `extra` of a line about a migration. Attempt and host are found where they are not given."""
    return {"migration": migration, "attempt": attempt, "host": host}


def about_host(host: str) -> dict[str, object]:
    """The `extra` of a line about a host that is not this process's own."""
    return {"host": host}
