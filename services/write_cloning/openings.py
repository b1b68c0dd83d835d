"""In which run each volume was last opened: what tells a witness from an old copy of it.

It stands in a file of its own, beside the run number and apart from the witnesses, and is written after a witness and before
its volume opens. A witness of an earlier run than this was put back from somewhere.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opening:
    uuid: str
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Openings:
    """What stands in the file."""

    openings: tuple[_Opening, ...] = ()


class Openings:
    """Those of a host, by the UUID of the migration."""

    def __init__(self, storage: Storage) -> None:
        """Keep them in `storage`."""
        self._storage = storage
        self._writing = asyncio.Lock()

    async def read(self) -> dict[str, int]:
        """The last run of each; without those that are not known, which is the careful side."""
        content = await self._storage.get(_NAME)
        if content is None:
            return {}
        try:
            known = decode(_Openings, content, bytes_max=_BYTES_MAX)
        except Refusal as refusal:
            log.error("it is not known when volumes were opened last: %s", refusal.message)  # noqa: TRY400 - no defect of ours
            return {}
        return {each.uuid: each.run for each in known.openings}

    async def note(self, uuid: str, run: int) -> None:
        """Make durable that a volume is being opened.

        Raises:
            OSError: it could not be written.
        """
        async with self._writing:
            await self._write(await self.read() | {uuid: run})

    async def forget(self, uuid: str) -> None:
        """The migration exists no more."""
        async with self._writing:
            known = await self.read()
            if known.pop(uuid, None) is not None:
                await self._write(known)

    async def _write(self, runs: dict[str, int]) -> None:
        if not runs:
            await self._storage.remove(_NAME)
            return
        openings = _Openings(openings=tuple(_Opening(uuid=uuid, run=run) for uuid, run in runs.items()))
        await self._storage.put(_NAME, encode(openings))
