"""How a command of the console ends when it is not done: an exit status, a stable code, a sentence."""

from collections.abc import Iterable
from enum import IntEnum

from shared.messages.control import ErrorBody, ErrorReply
from shared.migration.refusals import Refusal


class Exit(IntEnum):
    """The exit statuses, the same for every command."""

    DONE = 0
    FAILED = 1  # refused or failed; nothing more can be read from the number
    USAGE = 2


class ConsoleError(Exception):
    """What the console itself has to refuse, or cannot do. `code` is stable, like those of the services."""

    def __init__(
        self, code: str, message: str, *, status: Exit = Exit.FAILED, allowed: Iterable[str] = ()
    ) -> None:
        """`message` is a whole sentence that names the thing."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.allowed = tuple(allowed)


def usage(message: str, allowed: Iterable[str] = ()) -> ConsoleError:
    """A command line that cannot be meant."""
    return ConsoleError("usage", message, status=Exit.USAGE, allowed=allowed)


def as_reply(error: ConsoleError | Refusal) -> ErrorReply:
    """The same shape as an error reply of a service, for `--json`."""
    return ErrorReply(error=ErrorBody(code=str(error.code), message=error.message, allowed=error.allowed))
