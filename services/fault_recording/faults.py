"""The fault log: when a fault is taken, and the record that tells of it."""

from shared.clock import Clock
from shared.messages.recording import FaultReport, Origin
from shared.messages.standing import (
    refuse_gone_back,
    refuse_judged_before,
    refuse_older_attempt,
    refuse_stale,
    refuse_unsound,
)
from shared.migration.ledger import Entry, Ledger
from shared.migration.records import FaultRecord, Kind


def decide_fault(origin: Origin, fault: FaultReport, ledger: Ledger, clock: Clock) -> FaultRecord | Entry:
    """The record of a fault, or the one that is there already.

    A fault of the current attempt is taken in any state. Its attempt may be ahead of the journal's, whose decision to
    enter it may still be on its way from the host's witness.

    Raises:
        Refusal: `stale`, `journal-unsound`.
    """
    refuse_unsound(ledger)
    refuse_gone_back(origin, ledger)
    refuse_stale(origin, ledger)
    present = ledger.operation(fault.operation_id, Kind.FAULT)
    if present is not None:
        return present
    refuse_older_attempt(origin.migration, fault.attempt, ledger)
    refuse_judged_before(origin, fault.operation_id, ledger)
    return FaultRecord(
        migration=origin.migration,
        uuid=origin.uuid,
        attempt=fault.attempt,
        host=origin.host,
        run=origin.run,
        decision=origin.decision,
        operation_id=fault.operation_id,
        recorded_at=clock.now_rfc3339(),
        life=origin.life,
        side=fault.side,
        state=fault.state,
        operation=fault.operation,
        cause=fault.cause,
        errno=fault.errno,
        offset=fault.offset,
        length=fault.length,
        detected_at=fault.detected_at,
    )
