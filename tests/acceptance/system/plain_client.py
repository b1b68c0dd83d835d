"""A client of the bus that knows nothing of Cutover's code: stock nats-py, subjects as text, JSON as it comes."""

import json
import queue
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from tests.acceptance.system.background import Background

JOURNAL = "CUTOVER_JOURNAL"
PATIENCE_S = 20.0
RECHECK_S = 0.2  # an event may come a moment before what it tells of can be asked for

Json = dict[str, Any]


class Refused(Exception):
    """An error reply."""

    def __init__(self, answer: "Answer") -> None:
        error = answer.body["error"]
        self.code: str = error["code"]
        self.message: str = error["message"]
        self.allowed: list[str] = error["allowed"]
        self.headers = answer.headers
        super().__init__(f"{self.code}: {self.message}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply as it came, and how long it took."""

    body: Json
    headers: dict[str, str] = field(default_factory=dict)
    took_s: float = 0.0

    def accepted(self) -> Json:
        """The body; raises `Refused` for an error reply."""
        if "error" in self.body:
            raise Refused(self)
        return self.body


@dataclass(frozen=True, slots=True)
class Recorded:
    """One record of the journal."""

    sequence: int
    subject: str
    payload: bytes

    @property
    def record(self) -> Json:
        """As JSON."""
        record: Json = json.loads(self.payload)
        return record

    @property
    def words(self) -> str:
        """What it tells, in a word or two: `flag-set`, `state syncing`, `fault target`."""
        kind: str = self.record["kind"]
        about = {"state": "state", "fault": "side"}.get(kind)
        return f"{kind} {self.record[about]}" if about else kind


class PlainClient:
    """One connection."""

    def __init__(
        self, background: Background, url: str, connect: Callable[[], Coroutine[Any, Any, Client]]
    ) -> None:
        self._background = background
        self.url = url
        self._client: Client = background.run(connect(), timeout_s=PATIENCE_S)

    def close(self) -> None:
        self._background.run(self._client.close(), timeout_s=PATIENCE_S)

    # ------------------------------------------------------------------ asking

    async def _ask(self, subject: str, payload: bytes, timeout_s: float) -> Answer:
        began = time.monotonic()
        reply = await self._client.request(subject, payload, timeout=timeout_s)
        return Answer(json.loads(reply.data), dict(reply.headers or {}), time.monotonic() - began)

    def ask(self, subject: str, payload: bytes = b"", *, timeout_s: float = PATIENCE_S) -> Answer:
        """Send these bytes, and have the reply."""
        return self._background.run(self._ask(subject, payload, timeout_s), timeout_s=timeout_s + 5)

    def begin_asking(
        self, subject: str, payload: bytes = b"", *, timeout_s: float = PATIENCE_S
    ) -> Future[Answer]:
        """Send these bytes now; the reply comes later."""
        return self._background.begin(self._ask(subject, payload, timeout_s))

    def command(self, verb: str, name: str, **fields: object) -> Json:
        """Have a command carried out; raises `Refused`."""
        payload = json.dumps(fields).encode() if fields else b""
        return self.ask(f"cutover.control.{verb}.{name}", payload).accepted()

    def refused(self, verb: str, name: str, **fields: object) -> Refused:
        """Give a command that has to be refused."""
        try:
            done = self.command(verb, name, **fields)
        except Refused as refusal:
            return refusal
        raise AssertionError(f"{verb} {name} {fields} was accepted: {done}")

    def query(self, name: str) -> Json:
        """Everything about one migration."""
        return self.command("query", name)

    # ------------------------------------------------------------------ the journal

    def journal(self, name: str) -> list[Recorded]:
        """Every record of one migration name, in order."""
        return self._background.run(self._journal(f"cutover.journal.{name}.>"), timeout_s=PATIENCE_S)

    async def _journal(self, subject: str) -> list[Recorded]:
        jetstream = self._client.jetstream()
        found: list[Recorded] = []
        while True:
            after = found[-1].sequence + 1 if found else 1
            try:
                message = await jetstream.get_msg(JOURNAL, seq=after, subject=subject, next=True)
            except NotFoundError:
                return found
            found.append(Recorded(message.seq or 0, message.subject or "", message.data or b""))

    def last_progress(self, name: str) -> Json:
        """What the stream of progress keeps of one migration."""
        last = self._client.jetstream().get_last_msg("CUTOVER_PROGRESS", f"cutover.progress.{name}")
        progress: Json = json.loads(self._background.run(last, timeout_s=PATIENCE_S).data or b"")
        return progress

    def words(self, name: str) -> list[str]:
        """The journal of one migration name in words."""
        return [each.words for each in self.journal(name)]

    def journal_length(self) -> int:
        """The last sequence of the whole stream."""
        info = self._background.run(self._client.jetstream().stream_info(JOURNAL), timeout_s=PATIENCE_S)
        return info.state.last_seq

    def is_flagged(self, name: str) -> bool:
        """Whether the last flag record of the journal is a set."""
        flags = [each.record["kind"] for each in self.journal(name) if each.subject.endswith(".flag")]
        return bool(flags) and flags[-1] == "flag-set"

    # ------------------------------------------------------------------ discovery

    def instances(self, service: str, *, expected: int, timeout_s: float = RECHECK_S) -> list[Json]:
        """Those of a service's instances that answer `$SRV.PING` in time; returns as soon as there are enough."""
        inbox = self._client.new_inbox()
        found: list[Json] = []
        with self.heard(inbox) as answers:
            ping = self._client.publish(f"$SRV.PING.{service}", b"", reply=inbox)
            self._background.run(ping, timeout_s=PATIENCE_S)
            while len(found) < expected:
                try:
                    found.append(json.loads(answers.get(timeout=timeout_s).data or b"null"))
                except queue.Empty:
                    break
        return found

    def until_instances(self, service: str, count: int) -> None:
        """Wait until so many instances of a service answer. They tell nobody of their coming, so they are asked."""
        end = time.monotonic() + PATIENCE_S
        while len(found := self.instances(service, expected=count)) != count:
            assert time.monotonic() < end, f"not {count} of {service}: {found}"

    # ------------------------------------------------------------------ listening

    @contextmanager
    def heard(self, *subjects: str) -> Iterator["queue.SimpleQueue[Msg]"]:
        """What is published meanwhile."""
        news: queue.SimpleQueue[Msg] = queue.SimpleQueue()

        async def hear(message: Msg) -> None:
            news.put(message)

        async def subscribe() -> list[Any]:
            subscriptions = [await self._client.subscribe(subject, cb=hear) for subject in subjects]
            await self._client.flush()
            return subscriptions

        async def unsubscribe() -> None:
            for subscription in subscriptions:
                await subscription.unsubscribe()

        subscriptions = self._background.run(subscribe(), timeout_s=PATIENCE_S)
        try:
            yield news
        finally:
            self._background.run(unsubscribe(), timeout_s=PATIENCE_S)

    def until(
        self, name: str, holds: Callable[[Json], object], *, timeout_s: float = PATIENCE_S, what: str = ""
    ) -> Json:
        """The answer to `query` once something holds of it; asked again whenever there is news of the migration."""
        end = time.monotonic() + timeout_s
        with self.heard(f"cutover.journal.{name}.>", f"cutover.progress.{name}") as news:
            while not holds(status := self.query(name)):
                left = end - time.monotonic()
                assert left > 0, f"{name} did not come to {what or holds} in {timeout_s:g} s: {status}"
                try:
                    news.get(timeout=min(RECHECK_S, left))
                except queue.Empty:
                    continue
        return status

    def until_state(self, name: str, state: str, *, timeout_s: float = PATIENCE_S) -> Json:
        """Wait for a state that the journal holds."""
        return self.until(
            name,
            lambda status: status["state"] == state and not status["journal_pending"],
            timeout_s=timeout_s,
            what=state,
        )
