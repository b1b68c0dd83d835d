"""What a service may ask of the bus. NATS stands behind it in production, a simulated bus in simulation.

Payloads are the dataclasses of `shared.messages`; the codec is the implementation's business.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from shared.messages.codec import REQUEST_BYTES_MAX
from shared.migration.ledger import Entry, Ledger, Tail
from shared.migration.records import AnyRecord
from shared.migration.refusals import Code, Refusal

Reply = TypeVar("Reply")

SERVICE_VERSION = "0.1.0"  # of every service of this program

Handler = Callable[..., Awaitable[object]]
"""Takes the names in the subject, in their order (one empty string where it has none), and the decoded request.

Returns the reply, or raises a `Refusal`.
"""


class Unanswered(Refusal):
    """The request was sent, and no answer came: it may or may not have been done. Every other refusal is definite."""

    def __init__(self, message: str) -> None:
        """Say what was asked and how long it was waited for."""
        super().__init__(Code.SERVICE_AWAY, message)


class Requests(Protocol):
    """Asking another service, and telling whoever listens."""

    async def request(self, subject: str, payload: object, reply: type[Reply], *, timeout_s: float) -> Reply:
        """Ask, and decode the answer.

        Raises:
            Unanswered: no answer came in time, or the connection broke while waiting.
            Refusal: the other side's refusal, as it was; `service-away` when nobody serves the subject; `journal-away`
                when there is no connection to the bus; `not-permitted`. With these nothing was done.
        """

    async def publish(self, subject: str, payload: object) -> None:
        """Tell whoever listens; nobody need. Nothing is kept of it unless a stream covers the subject.

        Raises:
            Refusal: `journal-away` when there is no connection to the bus.
        """


class Journal(Protocol):
    """The durable record of every migration: one chain each."""

    async def read(self, migration: str) -> Ledger:
        """Everything recorded of one migration, read anew and folded.

        Raises:
            Refusal: `journal-away`; `newer-version` for a record that this version cannot read; `journal-unsound` for
                one that is no record at all.
        """

    async def append(self, record: AnyRecord, tail: Tail) -> Entry:
        """Append on exactly this tail: fills in the record's index and previous digest, and returns it as stored.

        Durable on return. A publish whose outcome is not known is looked up by its operation id before it is tried
        again, so a record is stored once however often this is interrupted; a record of the same operation id and kind
        that is there already is returned as it is.

        Raises:
            Refusal: `busy` when the chain has grown beyond `tail` without this operation; `journal-away`.
        """

    async def read_living(self) -> Mapping[str, Ledger | Refusal]:
        """The ledger of every migration that exists, or whose chain is damaged, in one pass; or why it cannot be read.

        Of earlier migrations of a name it tells the tombstones alone: names come and go by the thousand.

        Raises:
            Refusal: `journal-away`.
        """

    async def migrations(self) -> Sequence[str]:
        """The names that have a record, whether or not the migration still exists."""


class Durability(Protocol):
    """What the journal's acknowledgement is worth: whether what it has stored outlives a power cut."""

    async def require(self) -> None:
        """Return when what the journal acknowledges is on disk, or the operator has accepted that it is not.

        Raises:
            Refusal: `journal-unsynced`, naming the setting that is missing and the one that accepts it; `journal-away`.
        """

    @property
    def warnings(self) -> Sequence[str]:
        """What was accepted, in words, for everyone who looks at a migration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One subject that a service answers. Each token `*` is a migration's or a host's name, and checked."""

    name: str
    subject: str
    request: type
    handler: Handler
    request_bytes_max: int = REQUEST_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDescription:
    """How a service is found: `$SRV.PING.NAME`, `$SRV.INFO.NAME`, `$SRV.STATS.NAME`."""

    name: str
    description: str
    version: str = SERVICE_VERSION
    metadata: Mapping[str, str] = field(default_factory=dict)


class Endpoints(Protocol):
    """Answering requests."""

    def serve(
        self, service: ServiceDescription, endpoints: Sequence[Endpoint]
    ) -> AbstractAsyncContextManager[None]:
        """Answer on these endpoints for as long as the context is open; leaving it waits for the answers under way.

        Services of one name share their requests. A refusal becomes an error reply; so does any other exception, with
        the code `internal` and without its text, which goes to the log.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInstance:
    """One running service, as it describes itself."""

    name: str
    instance_id: str
    metadata: Mapping[str, str]
    version: str = ""


class Discovery(Protocol):
    """Who is there."""

    async def instances(self, service_name: str, *, timeout_s: float) -> Sequence[ServiceInstance]:
        """The instances of a service that made themselves known within the time.

        Raises:
            Refusal: `journal-away` when there is no connection to the bus, or it broke meanwhile; `not-permitted`.
        """


@dataclass(frozen=True, slots=True)
class Told:
    """Something that was published: where, and the bytes."""

    subject: str
    payload: bytes


class Listening(Protocol):
    """Hearing what is told."""

    def listen(self, *subjects: str) -> AbstractAsyncContextManager[AsyncIterator[Told]]:
        """What is published on these subjects once the context is open. A listener that is slow misses some."""
