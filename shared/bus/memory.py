"""A bus in memory: the same interfaces and refusals, one event loop, and nothing but it. For tests and simulation.

A `MemoryBroker` stands for the NATS server, and a `MemoryBus` for one process's connection to it, which can be cut and
healed. Everything passes through the codec, as bytes, as it would over the wire.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from shared.bus.answering import Answer, answer, refusal_in
from shared.bus.chain import Stored, WrongLastSequence
from shared.bus.interface import Endpoint, ServiceDescription, ServiceInstance, Told, Unanswered
from shared.bus.subjects import covers
from shared.messages.codec import decode_reply, encode
from shared.migration.refusals import Code, Refusal

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class Message:
    """What the broker keeps."""

    subject: str
    stored: Stored


@dataclass(slots=True, eq=False)
class Served:
    """One instance of a service: its endpoints, and the tasks that answer."""

    instance: ServiceInstance
    endpoints: Sequence[Endpoint]
    bus: "MemoryBus"
    tasks: asyncio.TaskGroup


@dataclass(slots=True, eq=False)
class _Listener:
    patterns: tuple[str, ...]
    queue: asyncio.Queue[Told]


@dataclass(slots=True)
class MemoryBroker:
    """What all connections share. `messages` is the journal's stream, open to tests that damage it."""

    messages: list[Message] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    listeners: list[_Listener] = field(default_factory=list)
    numbers: "count[int]" = field(default_factory=lambda: count(1))
    next_sequence: int = 1

    def last_sequence(self, subjects: str) -> int:
        """Of the last message on subjects; 0 when there is none."""
        return next(
            (each.stored.sequence for each in reversed(self.messages) if covers(subjects, each.subject)), 0
        )

    def store(self, subject: str, payload: bytes) -> Message:
        """Keep one more message."""
        message = Message(subject, Stored(self.next_sequence, payload))
        self.next_sequence += 1
        self.messages.append(message)
        return message


class MemoryBus:
    """One connection. Implements `Requests`, `Endpoints`, `Discovery` and `Listening`."""

    def __init__(self, broker: MemoryBroker, name: str = "memory") -> None:
        self.broker = broker
        self.name = name
        self._is_connected = True
        self._waiting: dict[asyncio.Future[Answer], None] = {}  # in the order of asking

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._is_connected

    def cut(self) -> None:
        """Lose the connection. Whoever waits for an answer learns that none will come."""
        self._is_connected = False
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(
                    Unanswered("The connection to the bus broke; it may or may not have been done.")
                )

    def heal(self) -> None:
        """Have the connection again."""
        self._is_connected = True

    async def request(self, subject: str, payload: object, reply: type[Reply], *, timeout_s: float) -> Reply:
        """See `Requests`."""
        self.require_connection()
        served, endpoint = self._find(subject)
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[answered] = None
        served.tasks.create_task(_respond(served, endpoint, subject, encode(payload), answered))
        try:
            async with asyncio.timeout(timeout_s):
                got = await answered
        except TimeoutError:
            raise Unanswered(
                f"No answer on {subject} within {timeout_s:g} s; it may or may not have been done."
            ) from None
        finally:
            self._waiting.pop(answered, None)
        if got.refusal is not None:
            raise refusal_in(got.payload)
        return decode_reply(reply, got.payload)

    async def publish(self, subject: str, payload: object) -> None:
        """See `Requests`."""
        self.require_connection()
        self.tell(subject, encode(payload))

    @asynccontextmanager
    async def serve(self, service: ServiceDescription, endpoints: Sequence[Endpoint]) -> AsyncIterator[None]:
        """See `Endpoints`."""
        self.require_connection()
        instance = ServiceInstance(
            name=service.name,
            instance_id=f"{self.name}-{next(self.broker.numbers)}",
            metadata=dict(service.metadata),
        )
        async with asyncio.TaskGroup() as tasks:
            served = Served(instance, tuple(endpoints), self, tasks)
            self.broker.served.append(served)
            try:
                yield
            finally:
                self.broker.served.remove(served)

    async def instances(self, service_name: str, *, timeout_s: float) -> Sequence[ServiceInstance]:  # noqa: ARG002
        """See `Discovery`."""
        self.require_connection()
        await asyncio.sleep(0)
        return [each.instance for each in self._reachable() if each.instance.name == service_name]

    @asynccontextmanager
    async def listen(self, *subjects: str) -> AsyncIterator[AsyncIterator[Told]]:
        """See `Listening`."""
        self.require_connection()
        listener = _Listener(subjects, asyncio.Queue())
        self.broker.listeners.append(listener)
        try:
            yield _heard(listener.queue)
        finally:
            self.broker.listeners.remove(listener)

    def tell(self, subject: str, payload: bytes) -> None:
        """Hand a message to everyone who listens."""
        for listener in self.broker.listeners:
            if any(covers(pattern, subject) for pattern in listener.patterns):
                listener.queue.put_nowait(Told(subject, payload))

    def require_connection(self) -> None:
        """Refuse when there is none."""
        if not self._is_connected:
            raise Refusal(Code.JOURNAL_AWAY, "There is no connection to the bus.")

    def _reachable(self) -> list[Served]:
        return [served for served in self.broker.served if served.bus.is_connected]

    def _find(self, subject: str) -> tuple[Served, Endpoint]:
        found = [
            (served, endpoint)
            for served in self._reachable()
            for endpoint in served.endpoints
            if covers(endpoint.subject, subject)
        ]
        if not found:
            raise Refusal(Code.SERVICE_AWAY, f"Nobody answers on {subject}.")
        return found[next(self.broker.numbers) % len(found)]


class MemoryStream:
    """The journal's stream over a connection. Implements `Stream`."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    async def read(self, subjects: str) -> Sequence[Stored]:
        """See `Stream`."""
        await self._reach()
        return [each.stored for each in self._on(subjects)]

    async def read_each(self, subjects: str, take: Callable[[str, Stored], None]) -> None:
        """See `Stream`."""
        await self._reach()
        for each in self._on(subjects):
            take(each.subject, each.stored)

    async def publish(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str],  # noqa: ARG002 # nobody reads them here
        *,
        subjects: str,
        last_sequence: int,
    ) -> int:
        """See `Stream`."""
        await self._reach()
        if self._bus.broker.last_sequence(subjects) != last_sequence:
            raise WrongLastSequence
        message = self._bus.broker.store(subject, payload)
        self._bus.tell(subject, payload)
        return message.stored.sequence

    async def subjects(self) -> Sequence[str]:
        """See `Stream`."""
        await self._reach()
        return sorted({each.subject for each in self._bus.broker.messages})

    def _on(self, subjects: str) -> list[Message]:
        return [each for each in self._bus.broker.messages if covers(subjects, each.subject)]

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # a round trip: others have their turn
        self._bus.require_connection()


class AcceptedDurability:
    """Implements `Durability` where there is no power to cut, or where the test says what is lacking."""

    def __init__(self, lacking: str | None = None) -> None:
        self.lacking = lacking

    @property
    def warnings(self) -> Sequence[str]:
        """See `Durability`."""
        return ()

    async def require(self) -> None:
        """See `Durability`."""
        if self.lacking is not None:
            raise Refusal(Code.JOURNAL_UNSYNCED, self.lacking)


async def _respond(
    served: Served, endpoint: Endpoint, subject: str, payload: bytes, answered: asyncio.Future[Answer]
) -> None:
    answer_ = await answer(endpoint, subject, payload)
    if served.bus.is_connected and not answered.done():
        answered.set_result(answer_)


async def _heard(queue: asyncio.Queue[Told]) -> AsyncIterator[Told]:
    while True:
        yield await queue.get()
