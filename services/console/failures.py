"""How a command of the console ends when it is not done: an exit status, a stable code, a sentence."""

from collections.abc import Iterable
from enum import IntEnum

from shared.migration.refusals import Code, Refusal


class Exit(IntEnum):
    """The exit statuses, the same for every command."""

    DONE = 0
    FAILED = 1  # refused or failed; nothing more can be read from the number
    USAGE = 2


class ConsoleError(Exception):
    """What the console itself has to refuse, or cannot do. `code` is stable, like those of the services."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: Exit = Exit.FAILED,
        allowed: Iterable[str] = (),
        attempt: int | None = None,
    ) -> None:
        """`message` is a whole sentence that names the thing; `attempt` is told where one has failed."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.allowed = tuple(allowed)
        self.attempt = attempt


def usage(message: str, allowed: Iterable[str] = ()) -> ConsoleError:
    """A command line that cannot be meant."""
    return ConsoleError("usage", message, status=Exit.USAGE, allowed=allowed)


# How a request's field, which the services name, is given on our command line.
_FLAGS = {
    Code.TARGET_IN_USE: ("(overwrite_target)", "(--overwrite-target)"),
    Code.NOT_VERIFIED: ("(verified: false)", "(--without-verify)"),
}


def message_of(error: ConsoleError | Refusal) -> str:
    """The sentence, in terms of the command line."""
    field, flag = _FLAGS.get(error.code, ("", "")) if isinstance(error, Refusal) else ("", "")
    return error.message.replace(field, flag) if field else error.message


def as_document(error: ConsoleError | Refusal) -> dict[str, object]:
    """The same shape as an error reply of a service, for `--json`; with the attempt, where one has failed."""
    body: dict[str, object] = {
        "code": str(error.code),
        "message": message_of(error),
        "allowed": error.allowed,
    }
    if isinstance(error, ConsoleError) and error.attempt is not None:
        body["attempt"] = error.attempt
    return {"error": body}
