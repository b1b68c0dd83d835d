"""Answering requests over NATS. Implements `Endpoints`; found and counted by the micro service protocol.

nats-py hands a subscription's messages over one at a time. Each request is passed on to a task at once, as many as
`CONCURRENCY_MAX` for each endpoint, so that a long one keeps no other waiting; beyond that they wait
in the subscription.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter_ns

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared.bus.answering import answer, queue_group, refused
from shared.bus.connection import Bus, unsubscribe
from shared.bus.interface import Endpoint, ServiceDescription
from shared.bus.micro import EndpointStatistics, MicroService, discovery_subjects, error_headers
from shared.bus.subjects import covers
from shared.messages.codec import encode
from shared.migration.refusals import Code, Refusal
from shared.plain import shortened

_log = logging.getLogger(__name__)

CONCURRENCY_MAX = 32
_NO_INBOXES = ("cutover.", "$")  # subjects of Cutover's own, and of the server's
_STATUS, _OF_THE_SERVER = "status", "nats-"  # headers
FINISH_TIMEOUT_S = 10.0  # for the answers that are under way when a service stops


class NatsEndpoints:
    """Serves endpoints on one connection."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    @asynccontextmanager
    async def serve(self, service: ServiceDescription, endpoints: Sequence[Endpoint]) -> AsyncIterator[None]:
        """See `Endpoints`."""
        async with self._answering(service, endpoints) as (micro, subscriptions):
            subscriptions.extend(await self._describe(micro))
            try:
                await self._bus.settle()
            except Refusal as refusal:  # what was subscribed is again when NATS is back; whoever serves volumes goes on doing so
                _log.warning("It is not known yet whether requests are heard: %s", refusal.message)
            self._bus.require_subscribed([subscription.subject for subscription in subscriptions])
            yield

    @asynccontextmanager
    async def answer_unfound(
        self, service: ServiceDescription, endpoints: Sequence[Endpoint]
    ) -> AsyncIterator[None]:
        """Answer to those who know the subject: no discovery finds it, and there need be no connection yet."""
        async with self._answering(service, endpoints):
            yield

    @asynccontextmanager
    async def _answering(
        self, service: ServiceDescription, endpoints: Sequence[Endpoint]
    ) -> AsyncIterator[tuple[MicroService, list[Subscription]]]:
        micro = MicroService(
            service=service,
            instance_id=self._bus.client.new_inbox().rpartition(".")[2],
            group=queue_group(service),
            started=self._bus.clock.now_rfc3339(),
        )
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
            running = _Running(self._bus, tasks)
            stack.push_async_callback(running.finish)
            subscriptions: list[Subscription] = []
            stack.push_async_callback(unsubscribe, subscriptions)
            for endpoint in endpoints:
                subscriptions += [await self._listen(endpoint, micro, running)]
            yield micro, subscriptions

    async def _listen(self, endpoint: Endpoint, micro: MicroService, running: "_Running") -> Subscription:
        receive = running.receiver(endpoint, micro.add(endpoint))
        return await self._bus.client.subscribe(endpoint.subject, queue=micro.group, cb=receive)

    async def _describe(self, micro: MicroService) -> list[Subscription]:
        subscriptions = []
        for verb, subject in discovery_subjects(micro.service.name, micro.instance_id):

            async def tell(message: Msg, verb: str = verb) -> None:
                if _why_no_inbox(message) is None:
                    await _send(self._bus, message, encode(micro.describe(verb)), None)

            subscriptions.append(await self._bus.client.subscribe(subject, cb=tell))
        return subscriptions


class _Running:
    """The requests that are being answered."""

    def __init__(self, bus: Bus, tasks: asyncio.TaskGroup) -> None:
        self._bus = bus
        self._tasks = tasks
        self._answering: set[asyncio.Task[None]] = set()

    def receiver(
        self, endpoint: Endpoint, statistics: EndpointStatistics
    ) -> Callable[[Msg], Awaitable[None]]:
        """What is called with every message of an endpoint."""
        free = asyncio.Semaphore(CONCURRENCY_MAX)

        async def respond(message: Msg) -> None:
            try:
                if (why := _why_no_request(endpoint, message)) is not None:
                    _log.warning("A message on %s is not heeded: %s", endpoint.subject, why)
                    return
                began_ns = perf_counter_ns()
                answered = await answer(endpoint, message.subject, message.data)
                statistics.count(answered, began_ns)
                await _send(self._bus, message, answered.payload, error_headers(answered))
            finally:
                free.release()

        async def receive(message: Msg) -> None:
            await free.acquire()
            task = self._tasks.create_task(respond(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        return receive

    async def finish(self) -> None:
        """Wait for what is under way; what takes too long is cancelled, and its asker left without an answer."""
        if not self._answering:
            return
        _done, late = await asyncio.wait(self._answering, timeout=FINISH_TIMEOUT_S)
        for task in late:
            _log.warning("A request is left unanswered: the service stops")
            task.cancel()


def _why_no_request(endpoint: Endpoint, message: Msg) -> str | None:
    """Why a message is not what somebody who may publish on this subject has asked; None where it is.

    The NATS server itself publishes where whoever asks *it* wants the answer, and asks nobody's permission for that. Such an
    answer may be empty ("404 No Messages"), which to us would be a command with its defaults. What the server says has a status
    or headers of its own, or the subject that it was stored under, and never an inbox to answer to.
    """
    headers = message.headers or {}
    if any(name.casefold() == _STATUS or name.casefold().startswith(_OF_THE_SERVER) for name in headers):
        return "it comes from the NATS server, which somebody has asked for it in our place"
    if not covers(endpoint.subject, message.subject):
        return f"it was published on {shortened(message.subject)}"
    return _why_no_inbox(message)


def _why_no_inbox(message: Msg) -> str | None:
    """Why nobody is answered; None where a message says where. Whoever asks names the subject."""
    if not message.reply:
        return "it names no inbox for the answer"
    if message.reply.startswith(_NO_INBOXES):  # and we may publish where the asker may not
        return f"it wants its answer on {shortened(message.reply)}, which is no inbox"
    return None


async def _send(bus: Bus, message: Msg, payload: bytes, headers: dict[str, str] | None) -> None:
    try:
        try:
            await bus.client.publish(message.reply, payload, headers=headers)
        except nats.errors.MaxPayloadError:
            size = f"{len(payload)} bytes, and this NATS server carries {bus.client.max_payload}"
            _log.warning("The answer to a request on %s is too large: %s", shortened(message.subject), size)
            too_large = refused(Refusal(Code.TOO_LARGE, f"The answer has {size}: ask for less of it."))
            await bus.client.publish(message.reply, too_large.payload, headers=error_headers(too_large))
    except nats.errors.Error as error:
        _log.warning("The answer to a request on %s is lost: %s", shortened(message.subject), error)
