"""What hosts have and the journal does not tell of: what it lost, contradicts, cannot be read of, or is yet to be told.

A host says for itself which volumes it has open and which it keeps closed. Where the journal says nothing of them, or nothing
that could be believed, that word is all there is, and silence would be taken for health.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.state_control.existing import lost_closed, lost_open, unreported
from shared.bus.interface import Journal
from shared.messages.host import ClosedView, HostStatusReply
from shared.messages.standing import gone_back_to_another, later_run
from shared.messages.status import HostView, UnlistedMigration
from shared.migration.condition import JournalCondition, condition_of, condition_when_refused
from shared.migration.ledger import Ledger
from shared.migration.refusals import Refusal

_ANOTHER = (
    "The journal has another migration {0!r}, of host {2!r}, than the one that host {1!r} has open. Application I/O goes on. "
    "Do not restart host {1!r} as long as the other one is there: its volume would stay closed. `cutover cleanup {0}` ends "
    "the other one."
)
_ANOTHER_CLOSED = (
    "The journal has another migration {0!r}, of host {2!r}, than the one that host {1!r} keeps closed: {3} "
    "`cutover cleanup {0}` ends the other one; then `cutover recover {0}` tells what may be done."
)
_GIVEN_AWAY = (
    "Host {1!r} still has {0!r} open, and the journal gives it to host {2!r}: two hosts may write to its devices. "
    "Host {1!r} closes it when it looks at the journal; where it does not, end it."
)
_PENDING = "{} Application I/O goes on, and the host repeats it by itself. What keeps it, since {}: {}"
_NOBODY = "No host that answers has it."


@dataclass(frozen=True, slots=True)
class _Found:
    """How the journal is to a host, in a word and in sentences."""

    condition: JournalCondition
    why: str


class Unlisted:
    """Those of one answer to `list`: what hosts told, held against the journal as it was read for the answer."""

    def __init__(
        self,
        journal: Journal,
        ledgers: Sequence[Ledger],
        unreadable: Mapping[str, Refusal],
        *,
        now: str,
    ) -> None:
        self._journal = journal
        self._ledgers = {ledger.migration: ledger for ledger in ledgers}
        self._unreadable = unreadable
        self._now = now

    async def found(self, answers: Sequence[HostStatusReply]) -> tuple[UnlistedMigration, ...]:
        """All of them, by name; those that no host has and that cannot be read at last."""
        found: list[UnlistedMigration] = []
        for answer in answers:
            found += [
                _open(view, trouble)
                for view in answer.migrations
                if (trouble := await self._of_open(answer.host, view)) is not None
            ]
            found += [
                _closed(answer, closed, trouble, self._now)
                for closed in answer.closed
                if (trouble := await self._of_closed(answer.host, closed)) is not None
            ]
        had = {each.name for each in found}
        found += [
            _nobodys(name, _unreadable(name, refusal), self._now)
            for name, refusal in self._unreadable.items()
            if name not in had
        ]
        return tuple(sorted(found, key=lambda each: (each.name, each.host)))

    async def _of_open(self, host: str, view: HostView) -> _Found | None:
        """What is wrong with the journal of an open volume; None where that is told with the journal's own word of it."""
        name = view.name
        if (refusal := self._unreadable.get(name)) is not None:
            return _unreadable(name, refusal)
        ledger = self._ledgers.get(name)
        if ledger is not None and ledger.host == host:
            return None  # it is listed
        # Not lost is what the journal was told, or what was cleaned up, while the hosts were asked.
        fresh = await self._read(name)
        if isinstance(fresh, _Found):
            return fresh
        if not view.tail_digest:
            return None if fresh.exists else _pending(host, view)  # it was told meanwhile
        condition = condition_of(fresh, view.uuid, view.tail_digest, host, view.run)
        if condition is JournalCondition.SOUND or (
            condition is JournalCondition.GONE_BACK and not fresh.exists
        ):
            return None
        return _Found(condition, _why(condition, fresh, host, view.run))

    async def _of_closed(self, host: str, closed: ClosedView) -> _Found | None:
        name = closed.name
        if (refusal := self._unreadable.get(name)) is not None:
            return _unreadable(name, refusal)
        ledger = self._ledgers.get(name)
        if ledger is not None and (ledger.host == host or closed.uuid in {None, ledger.uuid}):
            return None  # it is listed; or it was given to the host that has it now
        fresh = await self._read(name)
        if isinstance(fresh, _Found):
            return fresh
        if fresh.host == host or fresh.has_had(closed.uuid):
            return None  # it was set up while the hosts were asked; or it is over, which its host finds when it asks again
        if not fresh.exists:
            return _Found(JournalCondition.UNKNOWN, lost_closed(name, host, closed.message))
        return _Found(
            JournalCondition.ANOTHER, _ANOTHER_CLOSED.format(name, host, fresh.host, closed.message)
        )

    async def _read(self, name: str) -> Ledger | _Found:
        try:
            return await self._journal.read(name)
        except Refusal as refusal:
            if condition_when_refused(refusal.code) is None:
                raise
            return _unreadable(name, refusal)


def _why(condition: JournalCondition, ledger: Ledger, host: str, run: int) -> str:
    name = ledger.migration
    if condition is JournalCondition.ANOTHER:
        return _ANOTHER.format(name, host, ledger.host)
    if condition is JournalCondition.GIVEN_AWAY:
        return _GIVEN_AWAY.format(name, host, ledger.host)
    if condition is JournalCondition.LATER_RUN:
        return later_run(name, host, run, ledger.run)
    return gone_back_to_another(ledger, host).message if ledger.exists else lost_open(name, host)


def _pending(host: str, view: HostView) -> _Found | None:
    """One that has yet to be reported; None where nothing keeps it, and a moment later it is listed."""
    wait = view.journal_wait
    if wait is None or not wait.why:
        return None
    why = _PENDING.format(unreported(view.name, host), wait.since, wait.why)
    return _Found(JournalCondition.PENDING, why)


def _unreadable(name: str, refusal: Refusal) -> _Found:
    condition = condition_when_refused(refusal.code) or JournalCondition.UNREADABLE
    return _Found(condition, f"{name}: {refusal.message}")


def _open(view: HostView, trouble: _Found) -> UnlistedMigration:
    return UnlistedMigration(
        name=view.name,
        uuid=view.uuid,
        journal_condition=trouble.condition,
        state=view.state,
        attempt=view.attempt,
        authority=view.authority,
        host=view.host,
        host_answers=True,
        host_error=None,
        source=view.source,
        target=view.target,
        export_uri=view.export_uri,
        warnings=(trouble.why,),
        view=view,
        as_of=view.at,
    )


def _closed(answer: HostStatusReply, closed: ClosedView, trouble: _Found, now: str) -> UnlistedMigration:
    return _without_view(
        closed.name,
        closed.uuid,
        trouble,
        host=answer.host,
        host_answers=True,
        host_error=closed.message,
        now=now,
    )


def _nobodys(name: str, trouble: _Found, now: str) -> UnlistedMigration:
    return _without_view(name, None, trouble, host="", host_answers=False, host_error=_NOBODY, now=now)


def _without_view(
    name: str, uuid: str | None, trouble: _Found, *, host: str, host_answers: bool, host_error: str, now: str
) -> UnlistedMigration:
    return UnlistedMigration(
        name=name,
        uuid=uuid,
        journal_condition=trouble.condition,
        state=None,
        attempt=None,
        authority=None,
        host=host,
        host_answers=host_answers,
        host_error=host_error,
        source="",
        target="",
        export_uri=None,
        warnings=(trouble.why,),
        view=None,
        as_of=now,
    )
