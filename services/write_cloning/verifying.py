"""When a comparison begins, and what becomes of one that is through: the part of the decision point that `verify` is about.

Both are called in the migration's turn, so that no decision is being carried out meanwhile.
"""

import logging

from services.write_cloning.apparatus import Apparatus
from services.write_cloning.executor import Executor
from services.write_cloning.keeper import Keeper
from services.write_cloning.verification import Verification
from shared.clock import Clock
from shared.logs.about import about
from shared.messages.status import Outcome
from shared.migration.table import Facts
from shared.migration.verifying import require_verifiable

log = logging.getLogger(__name__)

ATTACHED = "A comparison was under way already; this is how far it is."


class Verifying:
    """That of one migration."""

    def __init__(self, keeper: Keeper, apparatus: Apparatus, executor: Executor, clock: Clock) -> None:
        """Begin with no comparison."""
        self._keeper = keeper
        self._apparatus = apparatus
        self._executor = executor
        self._clock = clock

    def is_begun(self, operation_id: str) -> bool:
        """Whether this command has nothing to begin any more: it did, or another comparison is under way."""
        present = self._apparatus.verification
        return present is not None and (present.outcome is None or present.id == operation_id)

    def begin(self, operation_id: str, facts: Facts) -> Verification:
        """Begin to compare. The caller has `record` called, in its turn, once all of it is equal.

        Raises:
            Refusal: the sides need not be the same now.
        """
        require_verifiable(facts)
        log.info("comparing source and target", extra=about(self._keeper.witness.migration))
        return self._apparatus.prepare_verification(operation_id, paused=self._keeper.witness.paused)

    async def record(self, verification: Verification) -> None:
        """Both sides were found equal everywhere: keep that in the witness, unless something has come in between."""
        if verification is not self._apparatus.verification or verification.outcome is not None:
            return
        if self._executor.has_lost_target:
            verification.conclude(Outcome.INCOMPLETE, "the target failed before its end")
            return
        try:
            await self._keeper.amend(verified_at=self._clock.now_rfc3339())
        except OSError as error:
            detail = f"nothing differs, but the witness could not be written: {error.strerror or error}"
            verification.conclude(Outcome.INCOMPLETE, detail)
            return
        verification.conclude(Outcome.EQUAL)
        log.info("source and target are equal", extra=about(self._keeper.witness.migration))
