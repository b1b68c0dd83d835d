"""What the NATS server does not permit, read from the words in which it says so. Pure.

The server answers nobody who was denied: it sends the connection an error, in words. nats-py hands them on in lower case,
and subjects have their case: one of ours is told as we wrote it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_WORDS = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)
_CREDENTIALS = ("authorization violation", "authentication expired", "authentication revoked")


@dataclass(frozen=True, slots=True)
class Denial:
    """One thing that was not permitted."""

    is_publish: bool
    subject: str

    def is_of(self, subject: str) -> bool:
        """Whether something under this subject, or the subject itself, was meant."""
        denied, wanted = self.subject.lower(), subject.lower()
        return denied == wanted or denied.startswith(f"{wanted}.")

    def sentence(self, who: str, others: int = 0) -> str:
        """For people, and for the log, with the number of other denials of that kind."""
        deed = "publish to" if self.is_publish else "subscribe to"
        more = f", nor to {others} other{'s' if others > 1 else ''}" if others else ""
        return f"The NATS server does not permit {who} to {deed} {self.subject}{more}."


def read_denial(error: Exception, written: Mapping[str, str] | None = None) -> Denial | None:
    """The denial that an error tells of; None for any other error. `written` has our subjects by what they are in lower case."""
    found = _WORDS.search(str(error))
    if found is None:
        return None
    subject = found[2].lower()
    return Denial(found[1].lower() == "publish", (written or {}).get(subject, subject))


def is_of_credentials(error: Exception) -> bool:
    """Whether the server says that it does not know who we are."""
    words = str(error).lower()
    return any(each in words for each in _CREDENTIALS)
