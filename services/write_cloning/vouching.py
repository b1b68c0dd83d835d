"""Which sides the witness names as unfenced, and the word that ends it: the part of the decision point that `vouch` is about.

All of it is called in the migration's turn, or at its end, so that no decision changes the state meanwhile.
"""

import logging

from services.write_cloning.fences import refuse_other_doubt
from services.write_cloning.keeper import Keeper
from services.write_cloning.left_behind import LeftBehind
from shared.logs.about import about
from shared.messages.host import HostCommand, doubt_of
from shared.migration.devices import Side

log = logging.getLogger(__name__)


class Vouching:
    """That of one migration."""

    def __init__(self, keeper: Keeper, left_behind: LeftBehind, run: int) -> None:
        """Begin with what the witness names."""
        self._keeper = keeper
        self._left_behind = left_behind
        self._run = run

    @property
    def doubt(self) -> str:
        """What a word about old connections would be given for, now."""
        witness = self._keeper.witness
        return doubt_of(witness.uuid, self._run, witness.decision, len(self._left_behind.broken))

    async def believe(self, request: HostCommand) -> None:
        """Take the operator's word that the old connections to remote devices are gone.

        Raises:
            Refusal: `stale` for a word that was given before; `internal` where the witness could not be written.
        """
        witness = self._keeper.witness
        refuse_other_doubt(witness.migration, request, self.doubt)
        self._left_behind.vouch()
        if witness.state is not None:
            unfenced = self._left_behind.unfenced(witness.state, witness.authority)
            await self._keeper.remember(unfenced=unfenced)

    async def note(self) -> None:
        """Note what is unfenced now: a device was let go of."""
        witness = self._keeper.witness
        if witness.state is not None:
            await self._write(self._left_behind.unfenced(witness.state, witness.authority))

    async def note_the_end(self) -> None:
        """Note what is unfenced once both devices are closed."""
        await self._write(self._left_behind.unfenced_at_the_end())

    async def _write(self, sides: tuple[Side, ...]) -> None:
        witness = self._keeper.witness
        if witness.state is None or set(sides) == set(witness.unfenced):
            return
        try:
            await self._keeper.amend(unfenced=sides)
        except OSError as error:  # at worst the operator is asked for a word that was not needed
            about_it = about(witness.migration)
            log.warning("that a device was let go of could not be noted: %s", error, extra=about_it)
