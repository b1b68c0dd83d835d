"""What a volume says when a device fails it, and who listens. The volume has acted already where acting cannot wait."""

import errno as errno_names
from dataclasses import dataclass
from typing import Protocol

from services.write_cloning.volume.requests import Kind, Request
from shared.migration.devices import Side

TIMEOUT = "timeout"

_OPERATIONS = {
    Kind.READ: "read",
    Kind.WRITE: "write",
    Kind.ZERO: "zero",
    Kind.TRIM: "trim",
    Kind.FLUSH: "flush",
    Kind.CACHE: "cache",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One operation that a device did not do. `errno` is None where the cause is no errno."""

    side: Side
    operation: str
    cause: str
    errno: int | None = None
    offset: int | None = None
    length: int | None = None

    @classmethod
    def of_request(cls, side: Side, request: Request, error: int, cause: str | None = None) -> "Failure":
        """Tell of a request's failure on one side."""
        is_flush = request.kind is Kind.FLUSH
        return cls(
            side=side,
            operation=_OPERATIONS[request.kind],
            cause=cause or errno_names.errorcode.get(error, str(error)),
            errno=error or None,
            offset=None if is_flush else request.offset,
            length=None if is_flush else request.length,
        )

    @classmethod
    def of_flush(cls, side: Side, error: int) -> "Failure":
        """Tell of a flush that a device has done for a request of another kind, and that has failed."""
        cause = errno_names.errorcode.get(error, str(error))
        return cls(side=side, operation="flush", cause=cause, errno=error)

    @classmethod
    def of_block_status(cls, side: Side, offset: int, length: int, error: OSError) -> "Failure":
        """Tell of a device that could not say where it has data."""
        number = error.errno or errno_names.EIO
        cause = errno_names.errorcode.get(number, str(number))
        return cls(
            side=side, operation="block-status", cause=cause, errno=number, offset=offset, length=length
        )


class SideFailedError(Exception):
    """A side failed, or left the routing, while something waited that the decision about it must not wait for."""


class FailureListener(Protocol):
    """The migration's decision point. Called from within the data path: take note, decide later, never block."""

    def target_failed(self, failure: Failure) -> None:
        """The target has left the routing; writes stay unanswered until `Failover.answer_withheld`."""

    def source_failed(self, failure: Failure) -> None:
        """A read was answered by the target, a write or a flush could not be done; nothing waits for a decision."""

    def source_lost(self, failure: Failure) -> None:
        """While reads come from the target, a source write or flush failed: no write is answered until the authority moves."""

    def sides_differ(self, request: Request) -> None:
        """The source failed a cloned write, as told before: copy the range again, then `Failover.settle(request)`."""
