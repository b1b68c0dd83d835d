"""`cutover wait`: until a migration is in a state, or can no longer come to it.

What wakes it is a record in the journal, or the host's word on the progress subject; a check now and then stands in for
an event that was missed. Each check asks for the status anew, so nothing is concluded from an event itself.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import orjson

from services.console.asking import Link, status_of
from services.console.failures import ConsoleError
from services.console.reachability import why_out_of_reach
from shared.bus.interface import Told
from shared.messages.status import PROGRESS_PREFIX, MigrationStatus, progress_subject
from shared.migration.records import Subjects
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Facts, with_faults

# An event may pass by a moment before the journal shows its record, so the first checks after it come quickly.
CHECK_DELAYS_S = (0.2, 1.0, 5.0)
AWAY_PATIENCE_S = 30.0  # how long services may be away once the waiting has begun
_AWAY = frozenset({Code.SERVICE_AWAY, Code.JOURNAL_AWAY})


async def wait_for(
    link: Link, name: str, wanted: State, timeout_s: float | None, note: Callable[[str], None]
) -> MigrationStatus:
    """The status once `name` is in `wanted`; `note` is told of what keeps it from coming there.

    Raises:
        ConsoleError: `out-of-reach`, `gone` or `timeout`.
        Refusal: the first question was refused, or the services stayed away.
    """
    waiter = _Waiter(link, name, wanted, note)
    try:
        async with (
            asyncio.timeout(timeout_s),
            link.listen(Subjects.chain(name), progress_subject(name)) as news,
        ):
            return await waiter.until_there(news)
    except TimeoutError:
        raise ConsoleError("timeout", waiter.late(timeout_s)) from None


@dataclass(slots=True)
class _Waiter:
    link: Link
    name: str
    wanted: State
    note: Callable[[str], None]
    first: MigrationStatus | None = None
    last: MigrationStatus | None = None
    attempt_began: bool = False
    away_since: float | None = None
    is_paused: bool = False  # which was noted
    host_error: str | None = None  # which was noted

    async def until_there(self, news: AsyncIterator[Told]) -> MigrationStatus:
        """Check, then check again with every piece of news and after every delay."""
        checks = 0
        while True:
            status = await self._check()
            if status is not None and status.state is self.wanted:
                return status
            delay_s = CHECK_DELAYS_S[min(checks, len(CHECK_DELAYS_S) - 1)]
            checks = 0 if await self._woken(news, delay_s) else checks + 1

    async def _woken(self, news: AsyncIterator[Told], delay_s: float) -> bool:
        try:
            async with asyncio.timeout(delay_s):
                async for told in news:
                    if self._is_new(told):
                        return True
        except TimeoutError:
            return False
        return False

    def _is_new(self, told: Told) -> bool:
        """Whether it may change the answer: the host repeats its progress every second, mostly in the same state."""
        if not told.subject.startswith(PROGRESS_PREFIX) or self.last is None:
            return True
        try:
            progress = orjson.loads(told.payload)
        except orjson.JSONDecodeError:
            return False
        return isinstance(progress, dict) and any(
            progress.get(key) != value
            for key, value in (("state", self.last.state), ("paused", self.last.paused))
        )

    async def _check(self) -> MigrationStatus | None:
        try:
            status = await status_of(self.link, self.name)
        except Refusal as refusal:
            self._bear(refusal)
            return None
        self.away_since = None
        self.last = status
        self._judge(status)
        self._note_pause(status)
        self._note_host(status)
        return status

    def _note_pause(self, status: MigrationStatus) -> None:
        """Say once, each time, that somebody has paused what is waited for."""
        is_paused = bool(status.paused) and status.state is State.SYNCING
        if is_paused and not self.is_paused:
            self.note(f"The copier of {self.name} is paused: `cutover resume {self.name}` lets it go on.")
        self.is_paused = is_paused

    def _note_host(self, status: MigrationStatus) -> None:
        """Say once, each time, that its host does not answer, or keeps it closed."""
        if status.host_error is not None and status.host_error != self.host_error:
            self.note(f"{self.name} waits for its host: {status.host_error}")
        self.host_error = status.host_error

    def _bear(self, refusal: Refusal) -> None:
        """Go on while services restart; give up where the migration has gone."""
        if self.first is None:
            raise refusal
        if refusal.code is Code.UNKNOWN_MIGRATION:
            raise ConsoleError(
                "gone", f"{self.name} has been cleaned up; it will not be {self.wanted} any more."
            )
        now = asyncio.get_running_loop().time()
        self.away_since = self.away_since or now
        if refusal.code not in _AWAY or now - self.away_since > AWAY_PATIENCE_S:
            raise refusal

    def _judge(self, status: MigrationStatus) -> None:
        self.first = self.first or status
        if status.uuid != self.first.uuid:
            raise ConsoleError(
                "gone", f"{self.name} has been cleaned up; the name belongs to another migration now."
            )
        if status.state is not State.SETUP or status.attempt > self.first.attempt:
            self.attempt_began = True
        why = why_out_of_reach(
            facts_of(status),
            self.wanted,
            attempt=status.attempt,
            attempt_ended=self.attempt_began,
            unreadable_regions=len(status.unreadable_regions),
        )
        if why is not None:
            raise ConsoleError(
                "out-of-reach",
                f"{self.name} can no longer become {self.wanted}: {why}.",
                allowed=status.allowed,
            )

    def late(self, timeout_s: float | None) -> str:
        """What a timeout says."""
        where = self.last.state.value if self.last is not None else "not known"
        return f"{self.name} was not {self.wanted} within {timeout_s:g} s; its state is {where}."


def facts_of(status: MigrationStatus) -> Facts:
    """What the state table decides on, as far as a status tells it."""
    current = [fault for fault in status.faults if fault.attempt == status.attempt]
    return with_faults(Facts(state=status.state, authority=status.authority), current)
