"""Asking only: `query`, `list`, `faults`. A host that is away is told of, and is no error."""

import asyncio
from collections.abc import Mapping, Sequence

from services.state_control.existing import AT_ONCE_MAX, Existing
from services.state_control.hosts import Hosts
from services.state_control.picture import (
    Picture,
    current_picture,
    picture_without_host,
    require_existing,
)
from services.state_control.reporting import fault_views, status_of
from services.state_control.unlisted import Unlisted
from shared.bounded import for_each
from shared.bus.interface import Durability, Journal
from shared.clock import Clock
from shared.messages.control import FaultsReply, ListReply, PlainRequest
from shared.messages.host import HostStatusReply
from shared.messages.status import MigrationStatus
from shared.migration.ledger import Ledger
from shared.migration.refusals import Code, Refusal


class Inquiries:
    """Every command that changes nothing."""

    def __init__(
        self, *, journal: Journal, hosts: Hosts, existing: Existing, durability: Durability, clock: Clock
    ) -> None:
        self._journal = journal
        self._hosts = hosts
        self._existing = existing
        self._durability = durability
        self._clock = clock

    async def query(self, name: str, _request: PlainRequest) -> MigrationStatus:
        """One migration.

        Raises:
            Refusal: `unknown-migration`, `journal-unsound`, `journal-away`.
        """
        ledger = await self._journal.read(name)
        await self._existing.require(ledger)
        asked = await self._ask_of_one(ledger.host, name)
        return self._status(await self._picture(ledger, asked), await self._journal_warnings())

    async def list_all(self, _name: str, _request: PlainRequest) -> ListReply:
        """Every migration that exists, and what hosts have besides: what they serve counts, not what the journal holds alone."""
        (ledgers, unreadable), up = await asyncio.gather(self._ledgers(), self._hosts.names())
        hosts = sorted({*up, *(ledger.host for ledger in ledgers)})
        answers = dict(zip(hosts, await for_each(hosts, self._ask, at_once=AT_ONCE_MAX), strict=True))
        warnings = await self._journal_warnings()
        pictures = [await self._picture(ledger, answers[ledger.host]) for ledger in ledgers]
        told = [answer for answer in answers.values() if isinstance(answer, HostStatusReply)]
        unlisted = Unlisted(self._journal, ledgers, unreadable, now=self._clock.now_rfc3339())
        found = await unlisted.found(told)
        return ListReply(
            migrations=tuple(self._status(picture, warnings) for picture in pictures),
            warnings=tuple(dict.fromkeys(warning for each in found for warning in each.warnings)),
            unlisted=found,
        )

    async def faults(self, name: str, _request: PlainRequest) -> FaultsReply:
        """The fault log of one migration, or of all where no name is given; earlier attempts included."""
        if name:
            ledger = await self._journal.read(name)
            await self._existing.require(ledger)
            ledgers = [ledger]
        else:
            ledgers, _unreadable = await self._ledgers()
        views = [view for ledger in ledgers for view in fault_views(ledger.all_faults)]
        return FaultsReply(faults=tuple(sorted(views, key=lambda view: view.detected_at)))

    async def _ledgers(self) -> tuple[list[Ledger], Mapping[str, Refusal]]:
        """Those of every migration that exists, and why others cannot be read."""
        names = await self._journal.migrations()
        found = await for_each(names, self._ledger, at_once=AT_ONCE_MAX)
        ledgers = [each for each in found if isinstance(each, Ledger)]
        unreadable = {
            name: each for name, each in zip(names, found, strict=True) if isinstance(each, Refusal)
        }
        return ledgers, unreadable

    async def _ledger(self, name: str) -> Ledger | Refusal | None:
        """The ledger of a migration that exists, or why its records cannot be read."""
        try:
            ledger = await self._journal.read(name)
            require_existing(ledger)
        except Refusal as refusal:
            if refusal.code is Code.UNKNOWN_MIGRATION:
                return None
            if refusal.code in {Code.JOURNAL_UNSOUND, Code.NEWER_VERSION}:
                return refusal
            raise
        return ledger

    async def _ask_of_one(self, host: str, name: str) -> HostStatusReply | Refusal:
        try:
            return await self._hosts.check(host, name)
        except Refusal as refusal:
            return refusal

    async def _ask(self, host: str) -> HostStatusReply | Refusal:
        try:
            return await self._hosts.check_all(host)
        except Refusal as refusal:
            return refusal

    async def _journal_warnings(self) -> Sequence[str]:
        try:
            await self._durability.require()
        except Refusal as refusal:
            return (refusal.message,)
        return self._durability.warnings

    async def _picture(self, ledger: Ledger, answer: HostStatusReply | Refusal) -> Picture:
        if isinstance(answer, Refusal):
            return picture_without_host(ledger, answer.message)
        return await current_picture(self._journal, ledger, answer)

    def _status(self, picture: Picture, warnings: Sequence[str]) -> MigrationStatus:
        return status_of(picture, warnings=warnings, now=self._clock.now_rfc3339())
