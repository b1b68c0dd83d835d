"""Following one migration: on a terminal a line that is drawn over, elsewhere a line for each change, or JSON objects.

Whatever the host tells of its progress, and every record in the journal, has the status asked for anew.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from rich.live import Live

from services.console.asking import Link, status_of
from services.console.failures import ConsoleError
from services.console.output import Output
from services.console.views import comparison_under_way, current_faults, status_line
from shared.bus.interface import Told
from shared.messages.status import MigrationStatus, progress_subject
from shared.migration.records import Subjects
from shared.migration.refusals import Code, Refusal

QUIET_CHECK_S = 2.0  # a status is asked for after so long without news
LULL_S = 0.1  # news that come together are one


async def watch(link: Link, name: str, out: Output) -> None:
    """Tell how `name` is until it is cleaned up.

    Raises:
        Refusal: the first question was refused.
    """
    if out.is_live:
        with Live(console=out.people, auto_refresh=False) as live:
            await _tell(link, name, Telling(out, live))
    else:
        await _tell(link, name, Telling(out))
    if not out.json:
        out.say(f"{name} has been cleaned up.")


async def _tell(link: Link, name: str, telling: "Telling") -> None:
    async for status in statuses(link, name):
        if isinstance(status, Refusal):
            telling.away(status)
        else:
            telling.status(status)


async def follow(
    link: Link, name: str, out: Output, is_over: Callable[[MigrationStatus], bool]
) -> MigrationStatus:
    """Tell how `name` is until something is so; the status that says so. With `--json`, only the end is told.

    Raises:
        ConsoleError: (`gone`) it was cleaned up first.
        Refusal: the first question was refused.
    """
    if not out.is_live:
        return await _until(link, name, Telling(out), is_over, is_silent=out.json)
    with Live(console=out.people, auto_refresh=False, transient=True) as live:
        return await _until(link, name, Telling(out, live), is_over)


async def _until(
    link: Link,
    name: str,
    telling: "Telling",
    is_over: Callable[[MigrationStatus], bool],
    *,
    is_silent: bool = False,
) -> MigrationStatus:
    async for status in statuses(link, name):
        if isinstance(status, Refusal):
            telling.away(status)
            continue
        if not is_silent:
            telling.status(status)
        if is_over(status):
            return status
    raise ConsoleError("gone", f"{name} has been cleaned up by someone else.")


async def statuses(link: Link, name: str) -> AsyncIterator[MigrationStatus | Refusal]:
    """The status now and after every piece of news, until the migration is gone. Refusals come like statuses."""
    async with link.listen(progress_subject(name), Subjects.chain(name)) as news:
        yield await status_of(link, name)
        while True:
            await _news_or_lull(news)
            try:
                status: MigrationStatus | Refusal = await status_of(link, name)
            except Refusal as refusal:
                if refusal.code is Code.UNKNOWN_MIGRATION:
                    return
                status = refusal
            yield status


async def _news_or_lull(news: AsyncIterator[Told]) -> None:
    try:
        async with asyncio.timeout(QUIET_CHECK_S) as until:
            await anext(news)
            until.reschedule(asyncio.get_running_loop().time() + LULL_S)
            async for _ in news:
                continue
    except TimeoutError:
        return


class Telling:
    """Where the lines go. Elsewhere than on a terminal, what was said last is not said again."""

    def __init__(self, out: Output, live: Live | None = None) -> None:
        """With `live`, one line is drawn over and over."""
        self._out = out
        self._live = live
        self._said: object = None
        self._host_error: str | None = None

    def status(self, status: MigrationStatus) -> None:
        """How it is now."""
        if self._out.json:
            self._out.result(status)
        elif self._live is not None:
            self._live.update(status_line(status, self._out.people.width), refresh=True)
        else:
            self._say_changes(status)
        self._say_trouble(status)

    def _say_trouble(self, status: MigrationStatus) -> None:
        if status.host_error is not None and status.host_error != self._host_error:
            self._out.note(f"{status.name} waits for its host: {status.host_error}")
        self._host_error = status.host_error

    def _say_changes(self, status: MigrationStatus) -> None:
        whole = int(status.synced_percent) if status.synced_percent is not None else None
        gist = (
            status.state,
            status.attempt,
            len(current_faults(status)),
            status.paused,
            whole,
            _comparison_gist(status),
            status.host_answers,
        )
        if gist != self._said:
            self._said = gist
            self._out.show(status_line(status))

    def away(self, refusal: Refusal) -> None:
        """Nobody answers now."""
        if refusal.code != self._said:
            self._said = refusal.code
            self._out.note(f"{refusal.code}: {refusal.message}")


def _comparison_gist(status: MigrationStatus) -> int | None:
    comparison = comparison_under_way(status.verification)
    if comparison is None or not status.size_bytes:
        return None
    return 100 * comparison.compared_bytes // status.size_bytes
