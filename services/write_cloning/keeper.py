"""The keeper of one witness: every change is on disk before anyone sees it, one change after the other."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

from services.write_cloning.witness import Witness, Witnesses
from shared.logs.about import about
from shared.migration.refusals import Code, Refusal

log = logging.getLogger(__name__)

WITNESS_RETRY_S = 1.0


class Keeper:
    """Holds what was written last."""

    def __init__(self, witness: Witness, witnesses: Witnesses) -> None:
        """Begin with a witness that is on disk."""
        self.witness = witness
        self.trouble = ""  # why application I/O waits for the witness, while it does
        self._witnesses = witnesses
        self._writing = asyncio.Lock()
        self._relied_index = 0  # of the last record that this run was told is stored

    async def amend(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of a Witness
        """Change some fields, durably on return.

        Raises:
            OSError: it could not be written; either version may be on disk.
        """
        async with self._writing:
            witness = replace(self.witness, **changes)
            await self._witnesses.write(witness)
            self.witness = witness

    async def remember(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of a Witness
        """Change some fields for a command, durably on return.

        Raises:
            Refusal: `internal` where it could not be written.
        """
        try:
            await self.amend(**changes)
        except OSError as error:
            raise unwritten(self.witness, error) from error

    async def insist(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of a Witness
        """Change some fields, however long it takes: until they are durable, what the target misses is not answered."""
        while True:
            try:
                await self.amend(**changes)
            except OSError as error:
                self._note(error.strerror or str(error))
                await asyncio.sleep(WITNESS_RETRY_S)
            else:
                self._note("")
                return

    def _note(self, trouble: str) -> None:
        """Tell when the trouble begins, becomes another, and is over; not each time that it is met."""
        if trouble and trouble != self.trouble:
            log.critical("the witness cannot be written, I/O waits for it: %s", trouble, extra=self._about())
        elif self.trouble and not trouble:
            log.warning("the witness can be written again", extra=self._about())
        self.trouble = trouble

    def _about(self) -> dict[str, object]:
        return about(self.witness.migration, self.witness.attempt)

    async def rely_on(self, index: int, digest: str) -> None:
        """Note that this record is in the journal. One that is found there again says nothing of those after it."""
        if index > self._relied_index:
            await self.amend(tail_digest=digest)
            self._relied_index = index

    async def spend_flag(self, digest: str) -> None:
        """Note that nobody enters cloning with this flag record again."""
        await self.amend(spent_flag_digest=digest, flag_digest="")


def unwritten(witness: Witness, error: OSError) -> Refusal:
    """The refusal of a change that `amend` could not write."""
    message = f"The witness of {witness.migration} could not be written: {error.strerror or error}"
    return Refusal(Code.INTERNAL, f"{message}; nothing has changed.")
