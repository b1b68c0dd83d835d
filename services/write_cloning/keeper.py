"""The keeper of one witness: every change is on disk before anyone sees it, one change after the other."""

import asyncio
from dataclasses import replace
from typing import Any

from services.write_cloning.witness import Witness, Witnesses


class Keeper:
    """Holds what was written last."""

    def __init__(self, witness: Witness, witnesses: Witnesses) -> None:
        """Begin with a witness that is on disk."""
        self.witness = witness
        self._witnesses = witnesses
        self._writing = asyncio.Lock()

    async def amend(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of a Witness
        """Change some fields, durably on return.

        Raises:
            OSError: it could not be written; either version may be on disk.
        """
        async with self._writing:
            witness = replace(self.witness, **changes)
            await self._witnesses.write(witness)
            self.witness = witness

    async def rely_on(self, digest: str) -> None:
        """Note that this record is in the journal."""
        await self.amend(tail_digest=digest)

    async def spend_flag(self, digest: str) -> None:
        """Note that nobody enters cloning with this flag record again."""
        await self.amend(spent_flag_digest=digest, flag_digest="")
