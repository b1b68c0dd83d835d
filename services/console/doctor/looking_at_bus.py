"""Asks the NATS server and whoever answers there, as far as the role of the configuration may.

What is denied or unanswered is a fact, too; so is what was not asked, because it would be denied.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
from nats.js.api import StreamConfig, StreamInfo

from services.console.asking import list_all
from services.console.doctor.facts import BusFacts, StorageFacts
from services.console.doctor.of_bus import JOURNAL_ROOM, SERVICES, VOLUMES
from shared.bus.bootstrap import PROGRESS_STREAM, differing_settings
from shared.bus.connection import Bus, connect
from shared.bus.durability import ServerDurability
from shared.bus.interface import ServiceInstance, Unanswered
from shared.bus.permissions import Role, may_ask, role_of_inboxes
from shared.bus.presented import certificate_not_after
from shared.bus.storing import store_trouble
from shared.clock import Clock
from shared.config.model import NatsConfig
from shared.messages.control import LIST_SUBJECT, ListReply
from shared.messages.status import MigrationStatus
from shared.migration.records import Subjects
from shared.migration.refusals import Code, Refusal

T = TypeVar("T")

CONNECT_TIMEOUT_S = 3.0
ASK_TIMEOUT_S = 3.0
DISCOVERY_TIMEOUT_S = 0.5
_DAY_S = 86400
_API = "$JS.API"
_NOT_FOUND = 404
_NO_STREAM = 10059


@dataclass(slots=True)
class _Asking:
    """What could not be asked, collected on the way."""

    bus: Bus
    role: Role
    unasked: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    async def ask(self, subject: str, question: Callable[[], Awaitable[T]], name: str) -> T | None:
        """The answer; None where there is none, or our role may not ask for it, both of which is noted."""
        if may_ask(self.role, subject):
            return await self.attempt(subject, question())
        self.unasked.append(name)
        return None

    async def attempt(self, what: str, answer: Awaitable[T]) -> T | None:
        """The answer; None where there is none, which is noted."""
        try:
            return await answer
        except Refusal as refusal:
            if refusal.code is Code.NOT_PERMITTED:
                self.denied.append(f"{what} is not permitted: {refusal.message}")
            elif refusal.code is not Code.SERVICE_AWAY or isinstance(refusal, Unanswered):
                self.troubles.append(f"{what}: {refusal.message}")
            return None  # that nobody serves it is told of where services are


async def look_at_bus(config: NatsConfig, clock: Clock) -> BusFacts:
    """Connect, and ask for everything that the checks need.

    Raises:
        ConfigError: a file that the configuration names is no use.
        Refusal: there is nobody, or he does not take our credentials.
    """
    bus = await connect(config, name="console", clock=clock, timeout_s=CONNECT_TIMEOUT_S)
    try:
        return await _looked(bus, config, clock)
    finally:
        await bus.close()


async def _looked(bus: Bus, config: NatsConfig, clock: Clock) -> BusFacts:
    asking = _Asking(bus, role_of_inboxes(config.inbox_prefix))
    lacking = await asking.attempt("/jsz", ServerDurability(bus, config).lacking())
    streams, server_ahead_s = await _streams(asking, clock)
    storage = await asking.ask(f"{_API}.INFO", lambda: _storage(bus), JOURNAL_ROOM)
    for subject in asking.role.hears:
        await asking.attempt(f"hearing {subject}", _hear(bus, subject))
    instances = await _instances(asking)
    began = _now(clock)
    listed = await asking.ask(LIST_SUBJECT, lambda: list_all(bus), VOLUMES)
    took_s = (_now(clock) - began).total_seconds()
    has_list, listed = listed is not None, listed or ListReply()
    return BusFacts(
        url=bus.url,
        role=asking.role.name,
        unasked=tuple(asking.unasked),
        version=bus.server.version,
        is_local=_is_local(bus.url),
        asks_for_credentials=bool(bus.client._server_info.get("auth_required")),  # noqa: SLF001 - nats-py tells it nowhere else
        certificate_days=_certificate_days(bus, clock),
        can_see_sync=config.monitor_url is not None,
        lacking=lacking or "",
        accepts_less=config.accept_unsynced_journal,
        streams=streams,
        storage=storage,
        store_trouble=await store_trouble(config.monitor_url)(),
        denied=tuple(dict.fromkeys(asking.denied)),
        server_ahead_s=server_ahead_s,
        hosts_ahead_s=_hosts_ahead(listed.migrations, began, took_s),
        clock_doubt_s=took_s,
        instances=instances,
        has_list=has_list,
        migrations=listed.migrations,
        unlisted=listed.unlisted,
        troubles=tuple(asking.troubles),
    )


def _certificate_days(bus: Bus, clock: Clock) -> float | None:
    not_after = certificate_not_after(bus)
    return None if not_after is None else (not_after - _now(clock).timestamp()) / _DAY_S


async def _streams(asking: _Asking, clock: Clock) -> tuple[dict[str, tuple[str, ...] | None], float | None]:
    """How each stream differs from what it has to be, and how far the server's clock is ahead of ours."""
    differing: dict[str, tuple[str, ...] | None] = {}
    ahead_s: float | None = None
    for name in (Subjects.STREAM, PROGRESS_STREAM):
        subject = f"{_API}.STREAM.INFO.{name}"
        began = _now(clock)
        answer = await asking.ask(subject, partial(_api, asking.bus, subject), f"the stream {name}")
        if answer is None:
            continue
        if "error" in answer:
            if answer["error"].get("code") == _NOT_FOUND:
                differing[name] = None
            else:
                asking.troubles.append(f"{subject}: {answer['error'].get('description')}")
            continue
        config = StreamInfo.from_response(answer).config
        differing[name] = differing_settings(
            config if isinstance(config, StreamConfig) else StreamConfig(name=name)
        )
        if "ts" in answer:
            middle = began + (_now(clock) - began) / 2
            ahead_s = (_time(answer["ts"]) - middle).total_seconds()
    if Subjects.STREAM not in differing and await _lacks_journal(asking):
        differing[Subjects.STREAM] = None
    return differing, ahead_s


async def _lacks_journal(asking: _Asking) -> bool:
    """Whether the journal is not there, for a role that may read it and not ask for its settings."""
    subject = f"{_API}.STREAM.MSG.GET.{Subjects.STREAM}"
    if not may_ask(asking.role, subject):
        return False
    wanted = orjson.dumps({"last_by_subj": Subjects.ALL})
    answer = await asking.attempt(subject, _api(asking.bus, subject, wanted))
    return answer is not None and answer.get("error", {}).get("err_code") == _NO_STREAM


async def _storage(bus: Bus) -> StorageFacts:
    answer = await _api(bus, f"{_API}.INFO")
    limit = int(answer.get("limits", {}).get("max_storage", -1))
    return StorageFacts(used_bytes=int(answer.get("storage", 0)), limit_bytes=limit if limit > 0 else None)


async def _api(bus: Bus, subject: str, payload: bytes = b"") -> dict[str, Any]:
    message = await bus.request_bytes(subject, payload, timeout_s=ASK_TIMEOUT_S)
    answer: dict[str, Any] = orjson.loads(message.data)
    return answer


async def _hear(bus: Bus, subject: str) -> None:
    async with bus.listen(subject):
        await bus.settle()


async def _instances(asking: _Asking) -> tuple[ServiceInstance, ...]:
    async def of(name: str) -> tuple[ServiceInstance, ...]:
        looking = partial(asking.bus.instances, name, timeout_s=DISCOVERY_TIMEOUT_S)
        found = await asking.ask(f"$SRV.INFO.{name}", looking, name)
        return tuple(found or ())

    answers = await asyncio.gather(*(of(name) for name in SERVICES))
    return tuple(each for found in answers for each in found)


def _hosts_ahead(migrations: tuple[MigrationStatus, ...], began: datetime, took_s: float) -> dict[str, float]:
    """How far each host's clock is ahead of ours, by the time that it put into its answer."""
    ahead: dict[str, float] = {}
    for each in migrations:
        if each.host_answers and each.export_uri is not None:
            ahead[each.host] = (_time(each.as_of) - began).total_seconds() - took_s / 2
    return ahead


def _is_local(url: str) -> bool:
    name = urlsplit(url).hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _now(clock: Clock) -> datetime:
    return _time(clock.now_rfc3339())


def _time(text: str) -> datetime:
    """A time as Go or Python writes it: nanoseconds or not."""
    head, dot, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}{dot}{rest[:6]}").replace(tzinfo=UTC)
