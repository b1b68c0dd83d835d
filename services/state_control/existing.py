"""Whether a name is that of a migration: by the journal's word, and by that of the hosts where the journal has none.

A journal that was lost or put back denies what hosts still serve. «There is no such migration» would then be believed by
whoever gives the name, or the devices, to somebody else; so before it is said, and before a name is given away, every host
that is up is asked. One that is away or hangs cannot be: its volume stays closed when it comes back, and is told of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.state_control.hosts import Hosts
from services.state_control.picture import require_existing
from shared.bounded import for_each
from shared.bus.interface import Journal
from shared.messages.host import HostStatusReply
from shared.migration.ledger import Ledger
from shared.migration.refusals import Code, Refusal

AT_ONCE_MAX = 8

_LOST = (
    "The journal does not know {!r}, which host {!r} has open: the journal has gone back, or is another one. Application I/O "
    "goes on. Restart the host to have the journal repaired."
)
_CLOSED = "The journal does not know {!r}, which host {!r} keeps closed: {}"
_UNREPORTED = "Host {!r} has set up {!r}, and the journal has yet to be told of it."


def lost_open(name: str, host: str) -> str:
    """The sentences about a volume that a host has open and the journal does not know."""
    return _LOST.format(name, host)


def lost_closed(name: str, host: str, why_closed: str) -> str:
    """The sentences about a volume that a host keeps closed and the journal does not know."""
    return _CLOSED.format(name, host, why_closed)


def unreported(name: str, host: str) -> str:
    """The sentence about a volume that a host has open and the journal was not told of so far."""
    return _UNREPORTED.format(host, name)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a host has under a name. `uuid` is None where the host cannot tell."""

    host: str
    uuid: str | None
    is_reported: bool
    why_lost: str


class Existing:
    """Names that are taken, and by whom."""

    def __init__(self, journal: Journal, hosts: Hosts) -> None:
        self._journal = journal
        self._hosts = hosts

    async def require(self, ledger: Ledger) -> None:
        """Refuse a name that no migration has.

        Raises:
            Refusal: `unknown-migration`; `journal-unsound` where the journal is damaged, or lacks what a host has.
        """
        try:
            require_existing(ledger)
        except Refusal as refusal:
            if refusal.code is Code.UNKNOWN_MIGRATION:
                await self.refuse_lost(ledger.migration)
            raise

    async def refuse_lost(self, name: str) -> None:
        """Refuse where a host has a migration of which the journal knows nothing.

        Raises:
            Refusal: `journal-unsound`; `unknown-migration`, saying who has it, where it was never recorded.
        """
        claims = await self._claims(name)
        for claim in claims:
            if claim.is_reported:
                raise Refusal(Code.JOURNAL_UNSOUND, claim.why_lost)
        if claims:
            raise Refusal(Code.UNKNOWN_MIGRATION, unreported(name, claims[0].host))

    async def require_free(self, name: str, chosen: str) -> None:
        """Refuse to give a name that the journal does not know to the chosen host while a host has something under it.

        What the chosen host has yet to report it answers for itself: the question may be the same one again.

        Raises:
            Refusal: `journal-unsound`, `name-taken`.
        """
        for claim in await self._claims(name):
            if claim.is_reported:
                raise Refusal(Code.JOURNAL_UNSOUND, claim.why_lost)
            if claim.host != chosen:
                raise Refusal(Code.NAME_TAKEN, unreported(name, claim.host))

    async def _claims(self, name: str) -> Sequence[_Claim]:
        """What hosts have and the journal never heard of, or has not been told yet."""

        async def ask(host: str) -> HostStatusReply | None:
            try:
                return await self._hosts.check(host, name)
            except Refusal:  # it went away, or hangs: as one that was away when hosts were looked for
                return None

        answers = await for_each(await self._hosts.names(), ask, at_once=AT_ONCE_MAX)
        claims = [claim for answer in answers if answer is not None for claim in _claims_of(answer, name)]
        if not claims:
            return ()
        # Not lost is what was cleaned up, and what the journal was told while the hosts were asked.
        ledger = await self._journal.read(name)
        return [claim for claim in claims if not ledger.has_had(claim.uuid)]


def _claims_of(answer: HostStatusReply, name: str) -> list[_Claim]:
    opened = [
        _Claim(answer.host, view.uuid, bool(view.tail_digest), lost_open(name, answer.host))
        for view in answer.migrations
        if view.name == name
    ]
    closed = [
        _Claim(answer.host, each.uuid, True, lost_closed(name, answer.host, each.message))
        for each in answer.closed
        if each.name == name
    ]
    return opened + closed
