"""What a service may ask of the bus. NATS stands behind it in production, a simulated bus in simulation.

Payloads are the dataclasses of `shared.messages`; the codec is the implementation's business.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from shared.migration.ledger import Entry, Ledger, Tail
from shared.migration.records import AnyRecord

Reply = TypeVar("Reply")

Handler = Callable[[str, Any], Awaitable[object]]
"""Takes the last token of the subject (a migration, or empty where the subject has none) and the decoded request; returns the reply."""


class Requests(Protocol):
    """Asking another service, and telling whoever listens."""

    async def request(self, subject: str, payload: object, reply: type[Reply], *, timeout_s: float) -> Reply:
        """Ask, and decode the answer.

        Raises:
            Refusal: the other side's refusal, as it was; `service-away` when nobody serves the subject or no answer came in
                time (then it may or may not have been done); `journal-away` when there is no connection to the bus.
        """

    async def publish(self, subject: str, payload: object) -> None:
        """Tell whoever listens; nobody need. Nothing is kept of it unless a stream covers the subject."""


class Journal(Protocol):
    """The durable record of every migration: one chain each."""

    async def read(self, migration: str) -> Ledger:
        """Everything recorded of one migration, read anew and folded.

        Raises:
            Refusal: `journal-away`; `newer-version` for a record that this version cannot read; `journal-unsound` for one
                that is no record at all.
        """

    async def append(self, record: AnyRecord, tail: Tail) -> Entry:
        """Append on exactly this tail: fills in the record's index and previous digest, and returns it as stored.

        Durable on return. A publish whose outcome is not known is looked up by its operation id before it is tried again,
        so a record is stored once however often this is interrupted; a record of the same operation id and kind that is
        there already is returned as it is.

        Raises:
            Refusal: `busy` when the chain has grown beyond `tail` without this operation; `journal-away`.
        """

    async def migrations(self) -> Sequence[str]:
        """The names that have a record, whether or not the migration still exists."""
