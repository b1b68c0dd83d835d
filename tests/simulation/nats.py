"""The NATS server of the simulation: the in-memory broker, with what a network and a server do to messages.

Requests are lost, delayed, delivered twice; answers are lost after the deed. A publish to the journal may be lost, stored with
its acknowledgement lost, or stored late, when nobody waits for it any more (under the condition that it was sent with). The
server is restarted, and goes back: by a power cut, where it does not sync, or because somebody restored an old copy.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, TypeVar

from shared.bus.answering import Answer, answer, refusal_in
from shared.bus.chain import OutcomeUnknown, WrongLastSequence
from shared.bus.interface import Endpoint, ServiceInstance, Unanswered
from shared.bus.memory import MemoryBroker, MemoryBus, MemoryStream, Message, Served
from shared.messages.codec import decode_reply, encode
from tests.simulation.process import NOBODY, Process, sleep_for_ever

Reply = TypeVar("Reply")

PUBLISH_TIMEOUT_S = 2.0
LATE_S_MAX = 12.0


class Fate(Enum):
    """What becomes of a message."""

    FINE = "fine"
    LOST = "lost"
    UNACKNOWLEDGED = "unacknowledged"
    TWICE = "twice"
    LATE = "late"


class Nats:
    """The server."""

    def __init__(
        self, rng: random.Random, point: Callable[[str, Process], None], count: Callable[[str], None]
    ) -> None:
        self.rng = rng
        self.point = point
        self.count = count
        self.broker = MemoryBroker()
        self.buses: list[SimulatedBus] = []
        self.is_up = True
        self.does_sync = True
        self.synced = 0  # messages that a power cut leaves
        self.went_back = 0  # how often
        self.does_delay_words = False  # an operator's, about remote devices: they come late, or again
        self.unluck = 0.0  # how likely a message's fate is not a fine one
        self.stored: Callable[[Message], None] = lambda _message: None
        self.lost: Callable[[Sequence[Message]], None] = lambda _messages: None
        self.is_outdated: Callable[[str, bytes], bool] = lambda _subject, _payload: False
        self.answered: Callable[[Process, str, object], None] = lambda _process, _subject, _reply: None

    def fate(self, kind: str) -> Fate:
        if self.rng.random() >= self.unluck:
            return Fate.FINE
        fate = self.rng.choice((Fate.LOST, Fate.UNACKNOWLEDGED, Fate.TWICE, Fate.LATE))
        self.count(f"{kind}:{fate.value}")
        return fate

    def store(self, subject: str, payload: bytes, *, subjects: str, last_sequence: int) -> int:
        broker = self.broker
        if broker.last_sequence(subjects) != last_sequence:
            raise WrongLastSequence
        message = broker.store(subject, payload)
        if self.does_sync:
            self.synced = len(broker.messages)
        self.stored(message)
        return message.stored.sequence

    def go_down(self) -> None:
        self.is_up = False
        for bus in self.buses:
            bus.cut()

    def come_up(self) -> None:
        self.is_up = True
        for bus in self.buses:
            bus.heal()

    def cut(self) -> None:
        """The power goes: a server that does not sync has lost some of what it acknowledged."""
        if not self.does_sync and len(self.broker.messages) > self.synced:
            self.go_back(self.rng.randint(self.synced, len(self.broker.messages)))
        self.synced = len(self.broker.messages)

    def go_back(self, length: int) -> None:
        """The stream is as it was at an earlier time."""
        messages = self.broker.messages
        if length < len(messages):
            self.lose(length, len(messages))
            self.broker.next_sequence = messages[-1].stored.sequence + 1 if messages else 1

    def lose(self, begin: int, end: int) -> None:
        """A piece is gone, and that lasts."""
        if begin < end:
            messages = self.broker.messages
            gone = messages[begin:end]
            del messages[begin:end]
            self.synced = len(messages)
            self.went_back += 1
            self.lost(gone)

    def drop(self, process: Process, *, linger_s: float) -> None:
        """A process is gone; the server may notice that only after a while."""
        for bus in [each for each in self.buses if each.process is process]:
            self.buses.remove(bus)
        asyncio.get_running_loop().call_later(linger_s, self._forget, process, context=NOBODY)
        if not linger_s:
            self._forget(process)

    def _forget(self, process: Process) -> None:
        served = self.broker.served
        served[:] = [each for each in served if getattr(each.bus, "process", None) is not process]


class SimulatedBus(MemoryBus):
    """One process's connection."""

    def __init__(self, nats: Nats, process: Process) -> None:
        super().__init__(nats.broker, process.name)
        self.nats = nats
        self.process = process
        nats.buses.append(self)
        if not nats.is_up:
            self.cut()

    async def request(self, subject: str, payload: object, reply: type[Reply], *, timeout_s: float) -> Reply:
        """See `Requests`."""
        self.require_connection()
        served, endpoint = self._find(subject)
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[answered] = None
        self._send(served, endpoint, subject, encode(payload), answered)
        try:
            async with asyncio.timeout(timeout_s):
                got = await answered
        except TimeoutError:
            raise Unanswered(f"No answer on {subject} within {timeout_s:g} s.") from None
        finally:
            self._waiting.pop(answered, None)
        if got.refusal is not None:
            raise refusal_in(got.payload)
        decoded = decode_reply(reply, got.payload)
        self.nats.answered(self.process, subject, decoded)
        return decoded

    def _send(
        self,
        served: Served,
        endpoint: Endpoint,
        subject: str,
        payload: bytes,
        answered: "asyncio.Future[Answer]",
    ) -> None:
        nats, loop = self.nats, asyncio.get_running_loop()
        fate = nats.fate("request")
        if nats.does_delay_words and subject.startswith("cutover.control.vouch.") and nats.rng.random() < 0.5:
            fate = nats.rng.choice((Fate.TWICE, Fate.LATE))
        if fate is Fate.LOST:
            return
        delay_s = nats.rng.random() * (LATE_S_MAX if fate is Fate.LATE else 0.003)
        process: Process = served.bus.process  # type: ignore[attr-defined]
        theirs = asyncio.Future(loop=loop) if fate is Fate.UNACKNOWLEDGED else answered
        loop.call_later(
            delay_s, self._arrive, served, endpoint, subject, payload, theirs, context=process.context
        )
        if fate is Fate.TWICE:
            again_s = nats.rng.random() * LATE_S_MAX
            loop.call_later(
                again_s, self._arrive, served, endpoint, subject, payload, asyncio.Future(loop=loop),
                context=process.context,
            )  # fmt: skip

    def _arrive(
        self,
        served: Served,
        endpoint: Endpoint,
        subject: str,
        payload: bytes,
        answered: "asyncio.Future[Answer]",
    ) -> None:
        if self.nats.is_outdated(subject, payload):
            return
        if served in self.broker.served and served.bus.is_connected:
            served.tasks.create_task(self._respond(served, endpoint, subject, payload, answered))

    async def _respond(
        self,
        served: Served,
        endpoint: Endpoint,
        subject: str,
        payload: bytes,
        answered: "asyncio.Future[Answer]",
    ) -> None:
        said = await answer(endpoint, subject, payload)
        if served.bus.is_connected:
            asyncio.get_running_loop().call_later(
                self.nats.rng.random() * 0.003, _hear, answered, said, context=self.process.context
            )

    async def instances(self, service_name: str, *, timeout_s: float) -> Sequence[ServiceInstance]:
        """See `Discovery`."""
        self.require_connection()
        await asyncio.sleep(self.nats.rng.random() * 0.01)
        self.require_connection()
        return [
            each.instance
            for each in self._reachable()
            if each.instance.name == service_name and not each.bus.process.is_dead  # type: ignore[attr-defined]
        ]


def _hear(answered: "asyncio.Future[Answer]", said: Answer) -> None:
    if not answered.done():
        answered.set_result(said)


class SimulatedStream(MemoryStream):
    """The journal's stream over one process's connection."""

    def __init__(self, bus: SimulatedBus) -> None:
        super().__init__(bus)
        self._nats = bus.nats
        self._process = bus.process

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str], *, subjects: str, last_sequence: int
    ) -> int:
        """See `Stream`."""
        nats = self._nats
        what = subject.split(".")[3]
        await self._reach()
        await self._pass(f"publish:{what}:before")
        fate = nats.fate("publish")
        condition: dict[str, Any] = {"subjects": subjects, "last_sequence": last_sequence}
        if fate is Fate.LOST:
            await self._no_answer()
        if fate is Fate.LATE:
            loop = asyncio.get_running_loop()
            loop.call_later(
                nats.rng.random() * LATE_S_MAX, self._store_late, subject, payload, condition, context=NOBODY
            )
            await self._no_answer()
        sequence = nats.store(subject, payload, **condition)
        self._bus.tell(subject, payload)
        await self._pass(f"publish:{what}:after")
        if fate is Fate.UNACKNOWLEDGED:
            await self._no_answer()
        await self._reach()
        return sequence

    def _store_late(self, subject: str, payload: bytes, condition: dict[str, Any]) -> None:
        if self._nats.is_up:
            try:
                self._nats.store(subject, payload, **condition)
            except WrongLastSequence:
                return

    async def _no_answer(self) -> None:
        await asyncio.sleep(PUBLISH_TIMEOUT_S)
        raise OutcomeUnknown("no answer came")

    async def _pass(self, point: str) -> None:
        self._nats.point(point, self._process)
        if self._process.is_dead:
            await sleep_for_ever()
        if not self._nats.is_up:
            raise OutcomeUnknown("the server went away")

    async def _reach(self) -> None:
        await asyncio.sleep(self._nats.rng.random() * 0.002)
        self._bus.require_connection()
