"""What a check finds: an outcome, what is so, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # it works, and will not in some case that comes
    FAILURE = "failure"  # it does not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line. `todo` is for whoever reads a warning or a failure."""

    outcome: Outcome
    message: str
    todo: str = ""


def ok(message: str) -> Finding:
    """All is well."""
    return Finding(outcome=Outcome.OK, message=message)


def warning(message: str, todo: str) -> Finding:
    """It works, and will not in some case that comes."""
    return Finding(outcome=Outcome.WARNING, message=message, todo=todo)


def failure(message: str, todo: str) -> Finding:
    """It does not work."""
    return Finding(outcome=Outcome.FAILURE, message=message, todo=todo)
