"""The connection to NATS: asking, telling and hearing, with every failure in the words of `shared.bus.interface`.

The connection is kept up for good: it is re-established as often as it breaks, and what is asked meanwhile is refused
at once. nats-py would hold such messages back and send them later, when nobody waits for them any more.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Protocol, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.bus.answering import refusal_in
from shared.bus.interface import ServiceInstance, Told, Unanswered
from shared.bus.micro import ERROR_CODE_HEADER
from shared.clock import Clock
from shared.config.urls import without_secrets
from shared.messages.cloudevents import event_headers
from shared.messages.codec import decode_reply, encode
from shared.migration.refusals import Code, Refusal

_log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

CONNECT_TIMEOUT_S = 4.0
CLOSE_TIMEOUT_S = 2.0
PING_INTERVAL_S = 2  # two pings without an answer, and the connection counts as broken
RECONNECT_WAIT_S = 0.25
_INSTANCES_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A NATS server, as it told of itself when the connection was made."""

    server_id: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Info:
    """What is read of the answer to `$SRV.INFO`; the field names are the protocol's."""

    name: str
    id: str
    metadata: dict[str, str]


class Bus:
    """One connection. Implements `Requests`, `Discovery` and `Listening`."""

    def __init__(self, client: Client, *, url: str, name: str, clock: Clock) -> None:
        self.client = client
        self.url = url  # without secrets
        self.name = name
        self.clock = clock
        self.losses = (
            0  # how often the connection was lost: what was true of one server may not be of the next
        )
        self._is_closing = False
        self._waiting: set[asyncio.Timeout] = set()
        self._event_numbers = count(1)
        self._on_reconnect: list[Callable[[], None]] = []

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now."""
        return bool(self.client.is_connected)

    @property
    def server(self) -> "Server":
        """The server that is connected."""
        told = self.client._server_info  # noqa: SLF001 # nats-py has the version in public, but not the id
        return Server(server_id=str(told.get("server_id", "")), version=str(told.get("version", "0")))

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever the connection was lost and is there again, perhaps to another server."""
        self._on_reconnect.append(callback)

    async def request(self, subject: str, payload: object, reply: type[Reply], *, timeout_s: float) -> Reply:
        """See `Requests`."""
        message = await self.request_bytes(subject, encode(payload), timeout_s=timeout_s)
        if message.headers and ERROR_CODE_HEADER in message.headers:
            raise refusal_in(message.data)
        return decode_reply(reply, message.data)

    async def request_bytes(
        self, subject: str, payload: bytes, *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> Msg:
        """Ask with bytes, for bytes; raises as `request` does."""
        async with self.waiting(subject, timeout_s):
            # nats-py's own deadline stays out of it: ours also ends when the connection breaks.
            with heeding_cancellation():
                return await self.client.request(subject, payload, timeout=2 * timeout_s, headers=headers)

    @asynccontextmanager
    async def waiting(self, subject: str, timeout_s: float) -> AsyncIterator[None]:
        """Wait for an answer on the connection; raises as `request` does."""
        self._require_connection()
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                self._waiting.add(deadline)
                try:
                    yield
                finally:
                    self._waiting.discard(deadline)
        except TimeoutError:
            raise self._unanswered(subject, timeout_s) from None
        except nats.js.errors.APIError:
            raise  # JetStream's answer, for whoever asked JetStream
        except nats.errors.NoRespondersError:
            raise Refusal(Code.SERVICE_AWAY, f"Nobody answers on {subject}.") from None
        except nats.errors.Error as error:
            raise _refusal_of(error, subject, self.url) from error

    async def publish(self, subject: str, payload: object) -> None:
        """See `Requests`."""
        self._require_connection()
        identifier = f"{self.name}-{self.client.client_id}-{next(self._event_numbers)}"
        headers = event_headers(
            identifier=identifier,
            source=f"/cutover/{self.name}",
            nats_subject=subject,
            at=self.clock.now_rfc3339(),
        )
        try:
            with heeding_cancellation():
                await self.client.publish(subject, encode(payload), headers=headers)
        except nats.errors.Error as error:
            raise _refusal_of(error, subject, self.url) from error

    @asynccontextmanager
    async def listen(self, *subjects: str) -> AsyncIterator[AsyncIterator[Told]]:
        """See `Listening`."""
        self._require_connection()
        queue: asyncio.Queue[Told] = asyncio.Queue(maxsize=1024)

        async def hear(message: Msg) -> None:
            if queue.full():
                queue.get_nowait()  # the oldest gives way
            queue.put_nowait(Told(message.subject, message.data))

        with heeding_cancellation():
            subscriptions = [await self.client.subscribe(subject, cb=hear) for subject in subjects]
        try:
            with heeding_cancellation():
                await self.settle()
            yield _Heard(queue)
        finally:
            await unsubscribe(subscriptions)

    async def instances(self, service_name: str, *, timeout_s: float) -> Sequence[ServiceInstance]:
        """See `Discovery`."""
        self._require_connection()
        inbox = self.client.new_inbox()
        found: list[ServiceInstance] = []
        async with self.listen(inbox) as answers:
            await self.client.publish(f"$SRV.INFO.{service_name}", b"", reply=inbox)
            with suppress(TimeoutError):  # everyone who answers had the time to
                async with asyncio.timeout(timeout_s):
                    async for told in answers:
                        if not told.payload:
                            break  # the server's word that nobody answers there
                        found.append(_instance(told.payload))
                        if len(found) >= _INSTANCES_MAX:
                            break
        return found

    async def settle(self) -> None:
        """Return when the server has taken everything that was sent so far, subscriptions included.

        nats-py writes the ping of a flush past what its writer still holds; the first one sees that written, the second
        that taken.
        """
        await self.client.flush()
        await self.client.flush()

    async def close(self) -> None:
        """Send what is left to send, and close. Never waits for anyone's subscription to be consumed."""
        self._is_closing = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if self.is_connected:
                    await self.settle()
        except (TimeoutError, nats.errors.Error) as error:
            _log.warning("Closing the connection to NATS without a last flush: %s", error)
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            await self.client.close()
        except asyncio.CancelledError:
            # Of nats-py's own attempt to reconnect, which it cancels; only one that is meant for us is passed on.
            if task is None or task.cancelling() > before:
                raise

    def connection_lost(self) -> None:
        """Wake everyone who waits for an answer: none will come on this connection."""
        self.losses += 1
        if not self._is_closing:
            _log.warning("The connection to NATS at %s is lost", self.url)
        for deadline in tuple(self._waiting):
            if deadline.expired():
                continue
            deadline.reschedule(asyncio.get_running_loop().time())

    def connection_back(self) -> None:
        """Tell those who asked to be told."""
        _log.info("The connection to NATS at %s is back", self.url)
        for callback in self._on_reconnect:
            callback()

    def _require_connection(self) -> None:
        if not self.is_connected:
            raise Refusal(Code.JOURNAL_AWAY, f"There is no connection to NATS at {self.url}.")

    def _unanswered(self, subject: str, timeout_s: float) -> Unanswered:
        if not self.is_connected:
            return Unanswered(
                f"The connection to NATS at {self.url} broke while waiting for an answer on {subject}; "
                "it may or may not have been done."
            )
        return Unanswered(f"No answer on {subject} within {timeout_s:g} s; it may or may not have been done.")


async def connect(url: str, *, name: str, clock: Clock, timeout_s: float = CONNECT_TIMEOUT_S) -> Bus:
    """Connect, and stay connected from then on.

    Raises:
        Refusal: (`journal-away`) there was no connection within `timeout_s`; names the URL and the last reason.
    """
    client = Client()
    bus = Bus(client, url=without_secrets(url), name=name, clock=clock)
    reasons: list[str] = []

    async def on_error(error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if reasons != [reason]:  # one line for a server that is away, not four a second
            _log.warning("NATS at %s: %s", bus.url, reason)
        reasons[:] = [reason]

    async def on_disconnected() -> None:
        bus.connection_lost()

    async def on_reconnected() -> None:
        reasons.clear()
        bus.connection_back()

    try:
        async with asyncio.timeout(timeout_s):
            await client.connect(
                url,
                name=name,
                error_cb=on_error,
                disconnected_cb=on_disconnected,
                reconnected_cb=on_reconnected,
                connect_timeout=max(1, int(timeout_s)),
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type] # a float does
                ping_interval=PING_INTERVAL_S,
                pending_size=0,  # nothing is held back for a later connection
            )
    except TimeoutError:
        await bus.close()
        because = f": {reasons[0]}" if reasons else ""
        raise Refusal(Code.JOURNAL_AWAY, f"NATS at {bus.url} cannot be reached{because}.") from None
    except (nats.errors.Error, ValueError) as error:
        raise Refusal(Code.JOURNAL_AWAY, f"NATS at {bus.url} cannot be reached: {error}.") from error
    return bus


@asynccontextmanager
async def connected(url: str, *, name: str, clock: Clock) -> AsyncIterator[Bus]:
    """A connection for as long as the context is open; raises as `connect` does."""
    bus = await connect(url, name=name, clock=clock)
    try:
        yield bus
    finally:
        await bus.close()


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """Raise the cancellation that came meanwhile: nats-py swallows one that meets it while it writes."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    yield
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


class _Endable(Protocol):
    """What every kind of subscription of nats-py can do."""

    async def unsubscribe(self) -> None:
        """End it."""


async def unsubscribe(subscriptions: Sequence[_Endable]) -> None:
    """End subscriptions, also when the connection is gone and has ended them already."""
    for subscription in subscriptions:
        try:
            await subscription.unsubscribe()
        except (nats.errors.ConnectionClosedError, nats.errors.BadSubscriptionError):
            continue


class _Heard:
    """What was told, in order. Not a generator, which a timeout around one step would end for good."""

    def __init__(self, queue: asyncio.Queue[Told]) -> None:
        self._queue = queue

    def __aiter__(self) -> AsyncIterator[Told]:
        return self

    async def __anext__(self) -> Told:
        return await self._queue.get()


def _instance(payload: bytes) -> ServiceInstance:
    info = decode_reply(_Info, payload)
    return ServiceInstance(name=info.name, instance_id=info.id, metadata=info.metadata)


def _refusal_of(error: nats.errors.Error, subject: str, url: str) -> Refusal:
    match error:
        case nats.errors.BadSubjectError():
            return Refusal(Code.BAD_NAME, f"{subject!r} is no subject: a name in it is malformed.")
        case nats.errors.MaxPayloadError():
            return Refusal(Code.TOO_LARGE, f"The message for {subject} is larger than NATS accepts.")
        case _:
            return Refusal(Code.JOURNAL_AWAY, f"There is no connection to NATS at {url}: {error}.")
