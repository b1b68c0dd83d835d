"""The connection to NATS: asking, telling and hearing, with every failure in the words of `shared.bus.interface`.

The connection is kept up for good: it is re-established as often as it breaks, and what is asked meanwhile is refused
at once. nats-py would hold such messages back and send them later, when nobody waits for them any more.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.bus.answering import refusal_in
from shared.bus.client import RECONNECT_WAIT_S, NoTls, SteadyClient, inbox_below
from shared.bus.credentials import Credentials, learn_authorities, read_credentials
from shared.bus.denials import Denial, is_of_credentials, read_denial
from shared.bus.discovery import NOBODY_DOUBTED_S, Answers
from shared.bus.interface import ServiceInstance, Told, Unanswered
from shared.bus.micro import ERROR_CODE_HEADER
from shared.bus.unconnected import Unconnected, Why, why_not_accepted
from shared.clock import Clock
from shared.config.load import ConfigError
from shared.config.model import NatsConfig
from shared.messages.cloudevents import event_headers
from shared.messages.codec import decode_reply, encode
from shared.migration.refusals import Code, Refusal
from shared.plain import shortened
from shared.stopping import StoppedError, end

_log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

CONNECT_TIMEOUT_S = 4.0
CLOSE_TIMEOUT_S = 2.0
PING_INTERVAL_S = 2  # two pings without an answer, and the connection counts as broken
_SILENT = "nothing there has spoken as a NATS server in time"
DEAF_TOLD_AFTER_S = 1.0  # a denied subscription, unless whoever wanted it is refused before
_DENIALS_MAX = 1000  # that are remembered, so that each is logged once


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A NATS server, as it told of itself when the connection was made."""

    server_id: str
    version: str


class Bus:
    """One connection. Implements `Requests`, `Discovery` and `Listening`."""

    def __init__(self, client: Client, *, url: str, name: str, clock: Clock, who: str) -> None:
        """`who` names the user that we are to the server, for people."""
        self.client = client
        self.url = url  # without secrets
        self.name = name
        self.clock = clock
        self.who = who
        self.losses = (
            0  # how often the connection was lost: what was true of one server may not be of the next
        )
        self._lost_at: str | None = None
        self._is_closing = False
        self._waiting: dict[asyncio.Timeout, str] = {}  # for an answer on that subject
        self._denied_waits: dict[asyncio.Timeout, Denial] = {}
        self._denials: set[Denial] = set()
        self._deaf: list[Denial] = []  # subscriptions that were denied, of which nobody was told yet
        self._doubted: set[str] = set()  # questions to which there was an answer that cannot be read
        self._event_numbers = count(1)
        self._event_prefix = ""  # of the ids of what this connection tells; unlike any other connection's
        self._on_reconnect: list[Callable[[], None]] = []

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now."""
        return bool(self.client.is_connected)

    @property
    def lost_at(self) -> str | None:
        """When the connection was lost; None while there is one."""
        return None if self.is_connected else self._lost_at

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
        headers = self._headers(subject)
        message = await self.request_bytes(subject, encode(payload), timeout_s=timeout_s, headers=headers)
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
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                self._waiting[deadline] = subject
                try:
                    yield
                finally:
                    del self._waiting[deadline]
        except TimeoutError:
            raise self._unanswered(deadline, subject, timeout_s) from None
        except nats.js.errors.APIError:
            raise  # JetStream's answer, for whoever asked JetStream
        except nats.errors.NoRespondersError:
            raise Refusal(Code.SERVICE_AWAY, f"Nobody answers on {subject}.") from None
        except nats.errors.Error as error:
            raise _refusal_of(error, subject, self.url, self.client.max_payload) from error

    async def publish(self, subject: str, payload: object) -> None:
        """See `Requests`."""
        self._require_connection()
        try:
            with heeding_cancellation():
                await self.client.publish(subject, encode(payload), headers=self._headers(subject))
        except nats.errors.Error as error:
            raise _refusal_of(error, subject, self.url, self.client.max_payload) from error

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
            self.require_subscribed(subjects)
            yield _Heard(queue)
        finally:
            await unsubscribe(subscriptions)

    async def instances(self, service_name: str, *, timeout_s: float) -> Sequence[ServiceInstance]:
        """See `Discovery`."""
        self._require_connection()
        inbox, subject = self.client.new_inbox(), f"$SRV.INFO.{service_name}"
        losses = self.losses
        deadline = asyncio.timeout(timeout_s)
        answers = Answers(service_name)
        async with self.listen(inbox) as heard:
            self._waiting[deadline] = subject
            try:
                with suppress(TimeoutError):  # everyone who answers had the time to
                    async with deadline:
                        await self.client.publish(subject, b"", reply=inbox)
                        await _gather(answers, heard, deadline)
            finally:
                del self._waiting[deadline]
        self._tell_passed_over(subject, answers)
        if (denial := self._denied_waits.pop(deadline, None)) is not None:
            raise Refusal(Code.NOT_PERMITTED, denial.sentence(self.who))
        if losses != self.losses:
            raise Refusal(
                Code.JOURNAL_AWAY,
                f"The connection to NATS at {self.url} broke while services were looked for.",
            )
        return answers.instances

    def _tell_passed_over(self, subject: str, answers: Answers) -> None:
        """Once for each question that is put again and again."""
        if answers.passed_over and subject not in self._doubted:
            self._doubted.add(subject)
            _log.warning(
                "An answer on %s is passed over, and so will others be: %s",
                subject,
                shortened(answers.passed_over),
            )

    async def settle(self) -> None:
        """Return when the server has taken everything that was sent so far, subscriptions included.

        nats-py writes the ping of a flush past what its writer still holds; the first one sees that written, the second
        that taken.

        Raises:
            Refusal: (`journal-away`) it has not, within nats-py's ten seconds, or the connection is gone.
        """
        try:
            await self.client.flush()
            await self.client.flush()
        except nats.errors.Error as error:
            message = f"NATS at {self.url} has not taken what was sent to it: {error}."
            raise Refusal(Code.JOURNAL_AWAY, message) from error

    async def close(self) -> None:
        """Send what is left to send, and close. Never waits for anyone's subscription to be consumed."""
        self._is_closing = True
        self._tell_deaf()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if self.is_connected:
                    await self.settle()
        except (TimeoutError, Refusal) as error:
            _log.warning("Closing the connection to NATS without a last flush: %s", error)
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.client.close()
        except TimeoutError:
            # Nobody ever tells the end of a stream whose TLS was refused (seen with Python 3.11); its socket is closed.
            _log.info("The connection to NATS at %s is closed without its last word", self.url)
        except (
            RuntimeError,
            ConnectionError,
        ) as error:  # nothing can be sent over it any more, as nats-py tries to
            _log.info("The connection to NATS at %s was closed already: %s", self.url, error)
        except asyncio.CancelledError:
            # Of nats-py's own attempt to reconnect, which it cancels; only one that is meant for us is passed on.
            if task is None or task.cancelling() > before:
                raise

    def connection_lost(self) -> None:
        """Wake everyone who waits for an answer: none will come on this connection."""
        self.losses += 1
        self._lost_at = self.clock.now_rfc3339()
        self._denials.clear()  # another server may permit more, and says so anew if not
        if not self._is_closing:
            _log.warning("The connection to NATS at %s is lost", self.url)
        for deadline in tuple(self._waiting):
            _end_now(deadline)

    @property
    def denials(self) -> frozenset[Denial]:
        """What the server has not permitted on this connection so far."""
        return frozenset(self._denials)

    def denied(self, denial: Denial) -> None:
        """Tell those who wait for what the server does not permit, and the log."""
        is_new = denial not in self._denials and len(self._denials) < _DENIALS_MAX
        if is_new:
            self._denials.add(denial)
        if not denial.is_publish:
            if is_new:
                self._deaf_to(denial)
            return
        if is_new:
            _log.warning(denial.sentence(self.who))
        for deadline, subject in tuple(self._waiting.items()):
            if denial.is_of(subject):
                self._denied_waits[deadline] = denial
                _end_now(deadline)

    def _deaf_to(self, denial: Denial) -> None:
        """Have it logged, in one line with those that come with it; `require_subscribed` tells of it before."""
        self._deaf.append(denial)
        if len(self._deaf) == 1:
            asyncio.get_running_loop().call_later(DEAF_TOLD_AFTER_S, self._tell_deaf)

    def _tell_deaf(self) -> None:
        if self._deaf:
            _log.warning(self._deaf[0].sentence(self.who, len(self._deaf) - 1))
            self._deaf.clear()

    def require_subscribed(self, subjects: Sequence[str]) -> None:
        """Check, once the server has taken subscriptions, that it has permitted them.

        Raises:
            Refusal: (`not-permitted`) one of them it has not.
        """
        by_subject = {each.subject.lower(): each for each in self._denials if not each.is_publish}
        denied = [by_subject[each.lower()] for each in subjects if each.lower() in by_subject]
        if denied:
            self._deaf = [each for each in self._deaf if each not in denied]  # whoever is refused is told
            raise Refusal(Code.NOT_PERMITTED, denied[0].sentence(self.who, len(denied) - 1))

    async def require_inbox(self) -> None:
        """See that answers to us can be heard at all.

        Raises:
            Refusal: `not-permitted`.
        """
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        try:
            await self.settle()
            self.require_subscribed([inbox])
        except Refusal as refusal:
            raise Unconnected(
                Why.INBOX,
                f"{refusal.message} Answers are sent there: nats.inbox_prefix has to be the one that the user may hear.",
            ) from None
        finally:
            await unsubscribe([subscription])

    def connection_back(self) -> None:
        """Tell those who asked to be told."""
        _log.info("The connection to NATS at %s is back", self.url)
        for callback in self._on_reconnect:
            callback()

    def trouble(self) -> str | None:
        """Why nothing can be asked, told or heard right now, as a sentence; None when it can."""
        return None if self.is_connected else f"There is no connection to NATS at {self.url}."

    def _headers(self, subject: str) -> dict[str, str]:
        if not self._event_prefix:
            self._event_prefix = self.client.new_inbox().rpartition(".")[2]
        return event_headers(
            identifier=f"{self._event_prefix}-{next(self._event_numbers)}",
            source=f"/cutover/{self.name}",
            nats_subject=subject,
            at=self.clock.now_rfc3339(),
        )

    def _require_connection(self) -> None:
        if trouble := self.trouble():
            raise Refusal(Code.JOURNAL_AWAY, trouble)

    def _unanswered(self, deadline: asyncio.Timeout, subject: str, timeout_s: float) -> Refusal:
        denial = self._denied_waits.pop(deadline, None)
        if denial is not None:
            return Refusal(Code.NOT_PERMITTED, denial.sentence(self.who))
        if not self.is_connected:
            return Unanswered(
                f"The connection to NATS at {self.url} broke while waiting for an answer on {subject}; "
                "it may or may not have been done."
            )
        return Unanswered(f"No answer on {subject} within {timeout_s:g} s; it may or may not have been done.")


async def connect(
    server: NatsConfig | str,
    *,
    name: str,
    clock: Clock,
    timeout_s: float = CONNECT_TIMEOUT_S,
    stop: asyncio.Event | None = None,
) -> Bus:
    """Connect, and stay connected from then on. A URL alone is a server that asks for no credentials.

    Raises:
        StoppedError: `stop` was set before there was a connection.
        ConfigError: a file that the configuration names is no use.
        Unconnected: `journal-away` when there was no connection within `timeout_s`, naming the URL and the last reason;
            `not-permitted` when the server refuses the credentials.
    """
    config = NatsConfig(url=server) if isinstance(server, str) else server
    credentials = read_credentials(config)
    client = SteadyClient(credentials, demands_tls=config.demands_tls)
    bus = Bus(client, url=config.shown_url, name=name, clock=clock, who=credentials.who)
    trouble = _Trouble(bus, config, credentials, client)
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            trouble.deadline = deadline
            connecting = client.connect(
                config.url,
                name=name,
                error_cb=trouble.on_error,
                disconnected_cb=trouble.on_disconnected,
                reconnected_cb=trouble.on_reconnected,
                signature_cb=client.signing,
                inbox_prefix=inbox_below(config.inbox_prefix),
                connect_timeout=max(1, int(timeout_s)),
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type] # a float does
                ping_interval=PING_INTERVAL_S,
                pending_size=0,  # nothing is held back for a later connection
                **_tls_options(credentials),
            )
            await _unless_stopped(stop, connecting)
            trouble.deadline = None  # whatever comes now is not the end
            await bus.require_inbox()
    except TimeoutError:
        await bus.close()
        await client.abandon()
        raise trouble.refusal() from None
    except (
        StoppedError,
        asyncio.CancelledError,
    ):  # or what is half connected connects again and again, for nobody
        await bus.close()
        await client.abandon()
        raise
    except (nats.errors.Error, ValueError) as error:
        await client.abandon()
        raise Unconnected(Why.AWAY, f"NATS at {bus.url} cannot be reached: {error}.") from error
    except Refusal:
        await bus.close()
        raise
    return bus


def _tls_options(credentials: Credentials) -> dict[str, Any]:
    return {} if credentials.tls is None else {"tls": credentials.tls}


class _Trouble:
    """What goes wrong with one connection, for those who wait for it, and for the log."""

    def __init__(self, bus: Bus, config: NatsConfig, credentials: Credentials, client: SteadyClient) -> None:
        self.deadline: asyncio.Timeout | None = None  # of the first connection, while there is none
        self._client = client
        self._bus = bus
        self._config = config
        self._credentials = credentials
        self._reason = ""
        self._why = Why.AWAY
        self._is_final = False

    async def on_error(self, error: Exception) -> None:
        """Take what nats-py has to say."""
        if (denial := read_denial(error, self._client.written)) is not None:
            self._bus.denied(denial)
            return
        if self._is_final:
            return  # what comes while the attempt is being ended is not why
        self._client.pace_after(error)
        self._why = _why(error)
        reason = self._words(error)
        if self._reason != reason:  # one line for a server that is away, not four a second
            _log.warning("NATS at %s: %s", self._bus.url, reason)
        self._reason = reason
        if isinstance(error, ssl.SSLCertVerificationError):
            await self._learn_authorities()
        if self.deadline is not None and (self._why is not Why.AWAY or isinstance(error, ssl.SSLError)):
            self._is_final = True
            _end_now(self.deadline)  # asking again would only bring the same

    async def _learn_authorities(self) -> None:
        """Before the next attempt: where the authority is replaced, the file has the new one besides the old one for a while."""
        tls, file = self._credentials.tls, self._config.tls_ca_file
        if tls is None or file is None:
            return
        try:
            await asyncio.to_thread(learn_authorities, tls, file)
        except ConfigError as error:
            _log.warning("The authorities that were read before go on to be used: %s", error)

    async def on_disconnected(self) -> None:
        """The connection is lost."""
        self._bus.connection_lost()

    async def on_reconnected(self) -> None:
        """The connection is there again."""
        self._reason = ""
        self._client.pace_after(None)
        self._bus.connection_back()

    def refusal(self) -> Unconnected:
        """Why there is no connection."""
        if self._why is Why.CREDENTIALS:
            return Unconnected(self._why, f"NATS at {self._bus.url}: {self._reason}.")
        because = self._reason or _SILENT
        return Unconnected(self._why, f"NATS at {self._bus.url} cannot be reached: {because}.")

    def _words(self, error: Exception) -> str:
        if is_of_credentials(error):
            named = (
                ""
                if self._config.nkey_seed_file
                else "; nats.nkey_seed_file names the file with a user's key"
            )
            return f"the NATS server refuses these credentials ({self._bus.who}){named}"
        if isinstance(error, ssl.SSLCertVerificationError):
            file = self._config.tls_ca_file
            judge = file or "this machine's own authorities (nats.tls_ca_file names another)"
            return f"its certificate is not accepted by {judge}: {error.verify_message.rstrip('.')}"
        if isinstance(error, TimeoutError) and not str(error):
            return _SILENT
        return str(error) or type(error).__name__


def _why(error: Exception) -> Why:
    if is_of_credentials(error):
        return Why.CREDENTIALS
    if isinstance(error, NoTls):
        return Why.NO_TLS
    return why_not_accepted(error) if isinstance(error, ssl.SSLCertVerificationError) else Why.AWAY


async def _gather(answers: Answers, heard: AsyncIterator[Told], deadline: asyncio.Timeout) -> None:
    """Take answers until the deadline; soon, where it is said that nobody is there and nobody answers all the same."""
    end = deadline.when()
    async for told in heard:
        if told.payload:
            answers.take(told.payload)
            deadline.reschedule(end)
        elif not answers.instances and end is not None:
            deadline.reschedule(min(end, asyncio.get_running_loop().time() + NOBODY_DOUBTED_S))
        if answers.is_full:
            return


def _end_now(deadline: asyncio.Timeout) -> None:
    if not deadline.expired():
        deadline.reschedule(asyncio.get_running_loop().time())


async def _unless_stopped(stop: asyncio.Event | None, connecting: Coroutine[Any, Any, None]) -> None:
    """See the connection made, unless `stop` or the caller's end comes first."""
    async with asyncio.TaskGroup() as tasks:
        attempt = tasks.create_task(_error_of(connecting))
        stopping = tasks.create_task((stop or asyncio.Event()).wait())
        try:
            await asyncio.wait({attempt, stopping}, return_when=asyncio.FIRST_COMPLETED)
            is_stopped = not attempt.done()
        finally:
            stopping.cancel()
            await end(attempt)
    if is_stopped:
        raise StoppedError
    if (error := attempt.result()) is not None:
        raise error


async def _error_of(connecting: Coroutine[Any, Any, None]) -> Exception | None:
    """What a task group would wrap up."""
    try:
        await connecting
    except Exception as error:  # noqa: BLE001 - it is raised by the caller
        return error
    return None


@asynccontextmanager
async def connected(
    server: NatsConfig | str, *, name: str, clock: Clock, stop: asyncio.Event | None = None
) -> AsyncIterator[Bus]:
    """A connection for as long as the context is open; raises as `connect` does."""
    bus = await connect(server, name=name, clock=clock, stop=stop)
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


def _refusal_of(error: nats.errors.Error, subject: str, url: str, bytes_max: int) -> Refusal:
    match error:
        case nats.errors.BadSubjectError():
            return Refusal(Code.BAD_NAME, f"{subject!r} is no subject: a name in it is malformed.")
        case nats.errors.MaxPayloadError():
            return Refusal(
                Code.TOO_LARGE,
                f"The message for {subject} is larger than this NATS server accepts: at most {bytes_max} bytes (`max_payload`).",
            )
        case _:
            return Refusal(Code.JOURNAL_AWAY, f"There is no connection to NATS at {url}: {error}.")
