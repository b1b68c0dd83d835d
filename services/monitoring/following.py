"""Follows the world on the bus, and tells the picture of it: what is told is heard, and the rest is asked for.

All migrations are asked for at the start, whenever the connection was lost, and now and then, the more seldom the longer the
answer takes; one is asked for when the journal has news of it. What is not answered is asked again later: nothing here fails
for it.
"""

import asyncio
import logging
from collections.abc import Sequence

from services.monitoring.archive import Archive
from services.monitoring.frames import SERVICES
from services.monitoring.hearing import Hearing
from services.monitoring.picture import EVENTS_MAX, Durability, Link, Picture
from services.monitoring.wall import Wall
from shared.bounded import for_each
from shared.bus.connection import Bus
from shared.bus.durability import ServerDurability
from shared.bus.interface import ServiceInstance
from shared.bus.presented import certificate_not_after, not_after_now
from shared.config.load import ConfigError
from shared.config.model import NatsConfig
from shared.logs.about import about
from shared.messages.control import (
    FAULTS_SUBJECT,
    LIST_SUBJECT,
    FaultsReply,
    ListReply,
    PlainRequest,
    control_subject,
)
from shared.messages.status import MigrationStatus, progress_subject
from shared.migration.records import Subjects
from shared.migration.refusals import Code, Refusal

_log = logging.getLogger(__name__)

LIST_TIMEOUT_S = 15.0
QUERY_TIMEOUT_S = 5.0
DISCOVERY_TIMEOUT_S = 0.5
LIST_INTERVAL_S = 15.0
LIST_SHARE = 40  # so many times as long as an answer takes is waited before the next question
DISCOVERY_INTERVAL_S = 4.0
LINK_CHECK_S = 0.25
CERTIFICATE_INTERVAL_S = 15 * 60.0
AFTER_NEWS_S = 0.15  # records of one transition come together
QUERIES_AT_ONCE = 2


class Following:
    """That of one connection."""

    def __init__(self, bus: Bus, config: NatsConfig, picture: Picture, wall: Wall) -> None:
        self._bus = bus
        self._config = config
        self._picture = picture
        self._wall = wall
        self._hearing = Hearing(picture, wall)
        self._archive = Archive(bus)
        self._durability = ServerDurability(bus, config)
        self._due = asyncio.Event()  # everything is to be asked for
        self._due.set()
        self._in_question: set[str] = set()
        self._has_questions = asyncio.Event()
        self._reading = asyncio.Lock()
        bus.on_reconnect(self._came_back)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (
                self._watch_link,
                self._listen,
                self._ask_for_all,
                self._ask_for_some,
                self._discover,
                self._watch_certificate,
            ):
                tasks.create_task(work())

    def _came_back(self) -> None:
        self._picture.told_certificate(certificate_not_after(self._bus))
        self._picture.forget_histories()
        self._due.set()

    async def read_history(self, name: str) -> None:
        """Have the picture told what the journal holds of one migration, unless it was. Where it cannot be read, nothing is."""
        async with self._reading:
            if not self._picture.wants_history(name):
                return
            try:
                records, is_whole = await self._archive.chain(name)
            except Refusal as refusal:
                _log.debug("the history of %s is not read: %s", name, refusal.message, extra=about(name))
                return
            self._picture.told_history(name, records, is_whole=is_whole)

    # ------------------------------------------------------------------ hearing

    async def _watch_link(self) -> None:
        shown: tuple[bool, str] | None = None
        while True:
            now = self._wall.now()
            is_connected = self._bus.is_connected
            version = self._bus.server.version if is_connected else ""
            if shown != (is_connected, version):
                shown = is_connected, version
                self._picture.told_link(
                    Link(is_connected=is_connected, since=now, url=self._bus.url, server_version=version)
                )
            self._picture.passed(now)
            await asyncio.sleep(LINK_CHECK_S)

    async def _listen(self) -> None:
        async with self._bus.listen(Subjects.ALL, progress_subject("*")) as told:
            async for each in told:
                if (name := self._hearing.hear(each)) is not None:
                    self._in_question.add(name)
                    self._has_questions.set()

    async def _watch_certificate(self) -> None:
        """A connection keeps to the certificate that it began with, so another is made for what the server shows by now."""
        self._picture.told_certificate(certificate_not_after(self._bus))
        while True:
            await asyncio.sleep(CERTIFICATE_INTERVAL_S)
            if certificate_not_after(self._bus) is None:
                continue
            try:
                self._picture.told_certificate(await not_after_now(self._config, self._bus.clock))
            except (Refusal, ConfigError) as trouble:  # what was shown last has not become better
                _log.debug("the server's certificate is not looked at: %s", trouble)

    # ------------------------------------------------------------------ asking

    async def _ask_for_all(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    await self._due.wait()
            except TimeoutError:
                pass  # it is time again
            self._due.clear()
            began = loop.time()
            is_answered = await self._ask_once()
            pause_s = max(LIST_INTERVAL_S, LIST_SHARE * (loop.time() - began)) if is_answered else 1.0

    async def _ask_once(self) -> bool:
        asked_at = self._wall.now()
        try:
            reply = await self._bus.request(LIST_SUBJECT, PlainRequest(), ListReply, timeout_s=LIST_TIMEOUT_S)
            self._picture.told_list(reply, asked_at, self._wall.now())
            faults = await self._bus.request(
                FAULTS_SUBJECT, PlainRequest(), FaultsReply, timeout_s=LIST_TIMEOUT_S
            )
            self._picture.told_faults(faults.faults)
            if not self._picture.events:
                self._picture.told_past(await self._archive.last(EVENTS_MAX))
            await self._ask_durability()
        except Refusal as refusal:
            _log.debug("not everything was answered: %s", refusal.message)
            return False
        return True

    async def _ask_durability(self) -> None:
        try:
            await self._durability.require()
        except Refusal as refusal:
            if refusal.code is Code.JOURNAL_UNSYNCED:
                self._picture.told_durability(Durability(is_established=False, because=refusal.message))
            return
        warnings = self._durability.warnings
        self._picture.told_durability(Durability(is_established=not warnings, because=" ".join(warnings)))

    async def _ask_for_some(self) -> None:
        while True:
            await self._has_questions.wait()
            await asyncio.sleep(AFTER_NEWS_S)
            self._has_questions.clear()
            names, self._in_question = sorted(self._in_question), set()
            await for_each(names, self._query, at_once=QUERIES_AT_ONCE)

    async def _query(self, name: str) -> None:
        subject = control_subject("query", name)
        try:
            status = await self._bus.request(
                subject, PlainRequest(), MigrationStatus, timeout_s=QUERY_TIMEOUT_S
            )
        except Refusal as refusal:
            known = self._picture.migrations.get(name)
            if refusal.code is Code.UNKNOWN_MIGRATION and known is not None and known.unlisted is None:
                self._due.set()  # a host may have it all the same; records are heard that the journal does not take
            return
        self._picture.told_status(status, self._wall.now())

    async def _discover(self) -> None:
        while True:
            try:
                found = await for_each(tuple(SERVICES), self._instances, at_once=len(SERVICES))
            except Refusal:
                found = []  # there is no connection, which is told already
            if (
                found and self._bus.is_connected
            ):  # who was silent because it was lost meanwhile need not be away
                self._picture.told_instances(dict(zip(SERVICES, found, strict=True)), self._wall.now())
            await asyncio.sleep(DISCOVERY_INTERVAL_S)

    async def _instances(self, service: str) -> Sequence[ServiceInstance]:
        return await self._bus.instances(service, timeout_s=DISCOVERY_TIMEOUT_S)
