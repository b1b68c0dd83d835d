"""What decisions mean for the region map: which map the witness trusts from then on, and when recording begins and ends.

The witness names the one map that may be believed. So it changes in the same write as the state, and a map is begun,
or prepared for another attempt, before that write, and given up only after it.
"""

from typing import Any

from services.write_cloning.apparatus import Apparatus
from services.write_cloning.keeper import Keeper
from services.write_cloning.map_takeover import OVER, header_of_attempt
from services.write_cloning.surroundings import Surroundings
from shared.migration.devices import Side
from shared.migration.states import State
from shared.migration.table import Transition, Trigger

_ABORTED = "the last attempt was aborted"
_FAULTED = "a device failed in the last attempt"


class MapDecisions:
    """Follows the decisions of one migration."""

    def __init__(self, keeper: Keeper, apparatus: Apparatus, around: Surroundings) -> None:
        """The apparatus has the map."""
        self._keeper = keeper
        self._apparatus = apparatus
        self._around = around

    async def prepare(self, row: Transition, *, attempt: int, flag_digest: str) -> dict[str, Any]:
        """Before a decision is written: what the witness is to say of the map then. No write is under way for `sync`."""
        if row.trigger is Trigger.SYNC:
            return await self._prepare_attempt(attempt, flag_digest)
        if because := _why_given_up(row):
            return {"region_map": "", "full_because": because}
        return {}

    async def _prepare_attempt(self, attempt: int, flag_digest: str) -> dict[str, Any]:
        maps = self._apparatus.maps
        is_partial = bool(maps.map_id)
        if is_partial:
            self._apparatus.due_regions = maps.due_regions
            await maps.enter(attempt, flag_digest)
        else:
            self._apparatus.due_regions = None
            header = header_of_attempt(
                self._keeper.witness,
                attempt=attempt,
                flag_digest=flag_digest,
                region_size_bytes=self._around.limits.region_size_bytes,
                run=self._around.run,
            )
            await maps.begin(header, None, all_due=True)
        return {
            "region_map": maps.map_id,
            "full_because": maps.full_because,
            "needs_verify": is_partial,  # what was not copied has not been read, either
        }

    async def follow(self, row: Transition) -> None:
        """The decision is in the witness."""
        maps = self._apparatus.maps
        if row.trigger is Trigger.SYNC:
            self._apparatus.volume.record_in(maps.marks)
            if maps.map_id and self._apparatus.due_regions is not None:
                # No write should have come since; one that has is copied.
                self._apparatus.due_regions = maps.due_regions
            if self._keeper.witness.region_map != maps.map_id:  # it was given up meanwhile
                await self.distrust(maps.full_because)
        elif because := _why_given_up(row):
            maps.void(because)

    async def undo(self, row: Transition) -> None:
        """The decision is not in the witness, or should not be. Writes are still held: they wait until this is done."""
        maps = self._apparatus.maps
        if row.trigger is Trigger.SYNC and maps.marks is not self._apparatus.volume.marks:
            # Begun in vain. Whoever finds it finds that everything may differ.
            maps.void(self._keeper.witness.full_because)
        if self._keeper.witness.region_map not in {"", maps.map_id}:
            # Given up for the decision: it records nothing any more, and the witness was to say so in the write that failed.
            await self.distrust(maps.full_because)

    async def distrust(self, because: str) -> None:
        """Have the witness trust no map, however long that takes: writes wait for it."""
        await self._keeper.insist(region_map="", full_because=because)


def _why_given_up(row: Transition) -> str:
    if row.authority is Side.TARGET:
        return OVER
    if row.after is State.SETUP and row.before is not None:
        return _ABORTED if row.trigger is Trigger.ABORT else _FAULTED
    return ""
