"""What the NATS server does not permit, read from the words in which it says so. Pure.

The server answers nobody who was denied: it sends the connection an error, in words. nats-py hands them on in lower case.
"""

import re
from dataclasses import dataclass

_WORDS = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)
_CREDENTIALS = ("authorization violation", "authentication expired", "authentication revoked")


@dataclass(frozen=True, slots=True)
class Denial:
    """One thing that was not permitted. `subject` is in lower case."""

    is_publish: bool
    subject: str

    def is_of(self, subject: str) -> bool:
        """Whether something under this subject, or the subject itself, was meant."""
        wanted = subject.lower()
        return self.subject == wanted or self.subject.startswith(f"{wanted}.")

    def sentence(self, who: str, subject: str = "") -> str:
        """For people, and for the log; `subject` is the same one as it was written."""
        deed = "publish to" if self.is_publish else "subscribe to"
        named = subject if subject.lower() == self.subject else self.subject
        return f"The NATS server does not permit {who} to {deed} {named}."


def read_denial(error: Exception) -> Denial | None:
    """The denial that an error tells of; None for any other error."""
    found = _WORDS.search(str(error))
    return Denial(found[1].lower() == "publish", found[2].lower()) if found else None


def is_of_credentials(error: Exception) -> bool:
    """Whether the server says that it does not know who we are."""
    words = str(error).lower()
    return any(each in words for each in _CREDENTIALS)
