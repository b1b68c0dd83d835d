"""In which run each volume was last opened, and which were cleaned up: what tells a witness or a journal from an old copy of it.

It stands in a file of its own, beside the run number and apart from the witnesses, and is written after a witness and before
its volume opens. A witness of an earlier run than this was put back from somewhere; so was a journal that knows of no end of
what was cleaned up here.
"""

import asyncio
import logging
from dataclasses import dataclass

from services.write_cloning.storage import Storage
from shared.messages.codec import decode, encode
from shared.migration.refusals import Refusal

log = logging.getLogger(__name__)

_NAME = "openings"
_BYTES_MAX = 1 << 20
REMOVED_MAX = 1000  # of which the end is remembered, the last ones


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opening:
    uuid: str
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Openings:
    """What stands in the file."""

    openings: tuple[_Opening, ...] = ()
    removed: tuple[str, ...] = ()


class Openings:
    """Those of a host, by the UUID of the migration."""

    def __init__(self, storage: Storage) -> None:
        """Keep them in `storage`."""
        self._storage = storage
        self._writing = asyncio.Lock()

    async def read(self) -> dict[str, int]:
        """The last run of each; without those that are not known, which is the careful side."""
        return {each.uuid: each.run for each in (await self._known()).openings}

    async def is_removed(self, uuid: str) -> bool:
        """Whether the migration was cleaned up on this host, as far as that is remembered."""
        return uuid in (await self._known()).removed

    async def note(self, uuid: str, run: int) -> None:
        """Make durable that a volume is being opened.

        Raises:
            OSError: it could not be written.
        """
        async with self._writing:
            known = await self._known()
            runs = {each.uuid: each.run for each in known.openings} | {uuid: run}
            await self._write(runs, known.removed)

    async def forget(self, uuid: str) -> None:
        """The migration exists no more: it was cleaned up, and is never opened again without a witness."""
        async with self._writing:
            known = await self._known()
            runs = {each.uuid: each.run for each in known.openings if each.uuid != uuid}
            removed = (*(each for each in known.removed if each != uuid), uuid)
            await self._write(runs, removed[-REMOVED_MAX:])

    async def _known(self) -> _Openings:
        content = await self._storage.get(_NAME)
        if content is None:
            return _Openings()
        try:
            return decode(_Openings, content, bytes_max=_BYTES_MAX)
        except Refusal as refusal:
            log.error("it is not known when volumes were opened last: %s", refusal.message)  # noqa: TRY400 - no defect of ours
            return _Openings()

    async def _write(self, runs: dict[str, int], removed: tuple[str, ...]) -> None:
        openings = tuple(_Opening(uuid=uuid, run=run) for uuid, run in runs.items())
        await self._storage.put(_NAME, encode(_Openings(openings=openings, removed=removed)))
