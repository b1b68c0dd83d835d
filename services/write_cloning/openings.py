"""In which run each volume was last opened, and which were cleaned up: what tells a witness or a journal from an old copy of it.

Likewise which ones another host has by now.

And which runs have asked for admission, and which was admitted last: what tells a whole state directory from an old copy.

It stands in a file of its own, beside the run number and apart from the witnesses, and is written after a witness and before
its volume opens. A witness of an earlier run than this was put back from somewhere; so was a journal that knows of no end of
what was cleaned up here.
"""

import asyncio
import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace

from services.write_cloning.storage import Storage
from shared.config.load import ConfigError
from shared.messages.admission import GivenAway, Try
from shared.messages.codec import encode
from shared.strict import Mistakes, read_json

_NAME = "openings"
REMOVED_MAX = 1000  # of which the end is remembered, the last ones
GIVEN_AWAY_MAX = 1000  # likewise
TRIED_MAX = 100  # that are remembered since the last admission, see `_bounded`
_TRIED_FIRST = 50  # of these


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opening:
    uuid: str
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The last run of the host that was admitted, None where that is not known, and those that only asked.

    Those before it count, too, for as long as a volume has been kept closed ever since.
    """

    admitted: int | None = None
    tried: tuple[Try, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Openings:
    """What stands in the file."""

    openings: tuple[_Opening, ...] = ()
    removed: tuple[str, ...] = ()
    runs: Runs = Runs()
    given_away: tuple[GivenAway, ...] = ()


class Openings:
    """Those of a host, by the UUID of the migration."""

    def __init__(self, storage: Storage) -> None:
        """Keep them in `storage`."""
        self._storage = storage
        self._writing = asyncio.Lock()

    async def require_readable(self) -> None:
        """See that nothing is there that cannot be read: whoever went on without it could not be told from an old copy.

        Raises:
            ConfigError: the file is damaged, too large, or of a newer version.
        """
        try:
            await self._known()
        except OSError as error:
            raise ConfigError(
                f"host.state_dir: the file {_NAME!r} cannot be read: {error.strerror or error}. By it an old state directory is "
                "known, so the host does not start: bring back the one of the last run. Where that is gone remove this one; "
                "docs/OPERATING.md, «The file `openings`», says what stays closed then."
            ) from error

    async def read(self) -> dict[str, int]:
        """The last run of each; without those that are not known, which is the careful side."""
        return {each.uuid: each.run for each in (await self._known()).openings}

    async def is_removed(self, uuid: str) -> bool:
        """Whether the migration was cleaned up on this host, as far as that is remembered."""
        return uuid in (await self._known()).removed

    async def given_away(self) -> tuple[GivenAway, ...]:
        """Those that another host has, and that were not opened here since."""
        return (await self._known()).given_away

    async def runs(self) -> Runs:
        """What is known of the runs of the host."""
        return (await self._known()).runs

    async def note_try(self, run: int, life: str, *, instead_of: str = "") -> None:
        """Make durable that this run asks for admission, before it does: what is recorded of it is known for its own.

        `life` is the question's name; it takes the place of one of the same run that nobody has heard.

        Raises:
            OSError: it could not be written.
        """
        async with self._writing:
            known = await self._known()
            tried = Try(run=run, life=life)
            if tried not in known.runs.tried:
                vain = Try(run=run, life=instead_of)
                others = (each for each in known.runs.tried if each != vain)
                runs = replace(known.runs, tried=_bounded((*others, tried)))
                await self._write(replace(known, runs=runs))

    async def note_admitted(self, run: int, believed: Mapping[str, int], *, is_any_closed: bool) -> None:
        """Make durable that this run was admitted, before anything is opened in it.

        `believed` are the runs of the witnesses that startup believes, by UUID. Where it was not known when a volume was opened
        last (the file was lost, or there was none in version 0.1.0) it was in that run: startup has held the witness against
        every later record but those of the tries. They are forgotten here, unless `is_any_closed`: the witness of a volume that
        stays closed is held against the records some other time.

        Raises:
            OSError: it could not be written.
        """
        async with self._writing:
            known = await self._known()
            unknown = believed.keys() - {each.uuid for each in known.openings}
            if known.runs.admitted != run or unknown:
                found = (_Opening(uuid=uuid, run=believed[uuid]) for uuid in sorted(unknown))
                runs = known.runs
                if runs.admitted != run:
                    others = (each for each in runs.tried if is_any_closed and each.run != run)
                    runs = Runs(admitted=run, tried=tuple(others))
                await self._write(replace(known, openings=(*known.openings, *found), runs=runs))

    async def note(self, uuid: str, run: int) -> None:
        """Make durable that a volume is being opened.

        Raises:
            OSError: it could not be written.
        """
        async with self._writing:
            known = await self._known()
            others = (each for each in known.openings if each.uuid != uuid)
            openings = (*others, _Opening(uuid=uuid, run=run))
            await self._write(replace(known, openings=openings, given_away=_without(known.given_away, uuid)))

    async def note_given_away(self, given: GivenAway) -> None:
        """Make durable that another host has a migration: a journal from before that does not open it here.

        Raises:
            OSError: it could not be written.
        """
        async with self._writing:
            known = await self._known()
            if given not in known.given_away:
                all_of_them = (*_without(known.given_away, given.uuid), given)
                await self._write(replace(known, given_away=all_of_them[-GIVEN_AWAY_MAX:]))

    async def forget(self, uuid: str) -> None:
        """The migration exists no more: it was cleaned up, and is never opened again without a witness."""
        async with self._writing:
            known = await self._known()
            openings = tuple(each for each in known.openings if each.uuid != uuid)
            removed = (*(each for each in known.removed if each != uuid), uuid)
            given_away = _without(known.given_away, uuid)
            await self._write(
                replace(known, openings=openings, removed=removed[-REMOVED_MAX:], given_away=given_away)
            )

    async def _known(self) -> _Openings:
        """What stands there; nothing in a directory that is new, or of version 0.1.0. Raises OSError when it cannot be read."""
        content = await self._storage.get(_NAME)
        if content is None:
            return _Openings()
        try:
            return read_json(_Openings, content)
        except Mistakes as mistakes:
            message = f"it is damaged, or of a newer version ({mistakes})"
            raise OSError(errno.EBADMSG, message) from mistakes

    async def _write(self, openings: _Openings) -> None:
        await self._storage.put(_NAME, encode(openings))


def _without(given_away: tuple[GivenAway, ...], uuid: str) -> tuple[GivenAway, ...]:
    return tuple(each for each in given_away if each.uuid != uuid)


def _bounded(tried: tuple[Try, ...]) -> tuple[Try, ...]:
    """The first and the last of them, however often a host is started that is not admitted.

    That is safe, whichever are left out. Tries are for one thing: what the journal holds of a run that the directory does not
    know, and that is none of its tries, has startup refuse. So one try less can make it refuse, and never admit.

    And the right directory is not refused for it. A record of a try that was not admitted is left where the host, or startup,
    dies in the middle of an admission: by the start that died, before others came to nothing, or by one of the last. Those that
    were refused, or did not reach startup, have left none.
    """
    if len(tried) <= TRIED_MAX:
        return tried
    return (*tried[:_TRIED_FIRST], *tried[_TRIED_FIRST - TRIED_MAX :])
