"""The faults of a migration's devices, until the reporter has them: noted as they happen, then put into the witness.

What follows from a fault is the decision point's business. `note` may come at any time, from within the data path; everything
else that changes something belongs to the turn of whoever decides.
"""

import logging
from dataclasses import replace

from services.write_cloning.keeper import Keeper
from services.write_cloning.reporter import Reporter
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.volume.failures import Failure
from shared.logs.about import about
from shared.messages.recording import FaultReport
from shared.migration.devices import Side
from shared.migration.states import State
from shared.migration.telling import fault_words

log = logging.getLogger(__name__)

# Of one attempt; what a device fails beyond that adds nothing, and is not even logged, unless it is the first failure of an
# operation: what may be decided depends on whether a flush has failed, however many writes did before it.
FAULTS_PER_SIDE_MAX = 32


class Faults:
    """Those of one migration."""

    def __init__(self, keeper: Keeper, reporter: Reporter, around: Surroundings) -> None:
        """Begin with none, beside those in the witness."""
        self._keeper = keeper
        self._reporter = reporter
        self._around = around
        self._undecided: list[FaultReport] = []  # faults that are not in the witness yet
        self._newly_kept: tuple[FaultReport, ...] = ()  # by the decision that is being carried out
        self._name = around.new_token()  # one run may have a migration twice: handed over, and given back
        self._number = 0

    @property
    def undecided(self) -> tuple[FaultReport, ...]:
        """Faults that are not in the witness yet. More may come at any time."""
        return tuple(self._undecided)

    @property
    def unreported(self) -> tuple[FaultReport, ...]:
        """Faults that the reporter does not have yet."""
        return (*self._undecided, *self._newly_kept)

    def count(self, side: Side) -> int:
        """Faults of one side in this attempt: those in the witness, and those on their way into it."""
        on_the_way = sum(fault.side is side for fault in self._undecided)
        return self._keeper.witness.fault_count(side) + on_the_way

    def _has_noted(self, failure: Failure) -> bool:
        return any(
            (fault.side, fault.operation) == (failure.side, failure.operation)
            for fault in (*self._keeper.witness.faults, *self._undecided)
        )

    def note(self, failure: Failure) -> None:
        """Take note of what a device did not do."""
        if self.count(failure.side) >= FAULTS_PER_SIDE_MAX and self._has_noted(failure):
            return
        witness = self._keeper.witness
        log.error(
            "the %s failed: %s",
            failure.side,
            fault_words(failure.operation, failure.cause, failure.offset),
            extra=about(witness.migration, witness.attempt),
        )
        self._number += 1
        self._undecided.append(
            FaultReport(
                operation_id=f"{witness.uuid}:fault:{self._around.run}:{self._name}:{self._number}",
                side=failure.side,
                state=witness.state or State.SETUP,
                attempt=witness.attempt,
                operation=failure.operation,
                cause=failure.cause,
                errno=failure.errno,
                offset=failure.offset,
                length=failure.length,
                detected_at=self._around.clock.now_rfc3339(),
            )
        )

    async def keep(self) -> None:
        """Put faults that belong to no decision into the witness, and have them recorded."""
        faults = self.undecided
        if faults:
            await self._keeper.insist(faults=(*self._keeper.witness.faults, *faults))
            del self._undecided[: len(faults)]  # more may have come
            self._reporter.want_faults(*faults)

    def taken_along(self, faults: tuple[FaultReport, ...]) -> None:
        """A decision has put these, the first of the undecided, into the witness; `report` follows."""
        self._newly_kept = faults
        # More may have come while the decision was written. They are of the attempt that it begins: once the journal records that
        # one, it takes no fault of the attempt before.
        attempt = self._keeper.witness.attempt
        self._undecided = [replace(fault, attempt=attempt) for fault in self._undecided[len(faults) :]]

    def report(self) -> None:
        """Have recorded what the last decision took along."""
        faults, self._newly_kept = self._newly_kept, ()
        if faults:
            self._reporter.want_faults(*faults)
