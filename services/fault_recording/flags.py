"""The error flag: when it may be set and cleared, and the records that say so.

A clear is the dangerous one: a flag that is cleared too early lets a stale target pass for a good one. It names the set
record that it answers. Both stand directly on the records that they were decided on: a set that comes late would pass for the
flag that somebody has entered with since.
"""

from shared.clock import Clock
from shared.messages.recording import ClearFlagRequest, Origin, SetFlagRequest
from shared.messages.standing import refuse_gone_back, refuse_stale, refuse_unsound, stale
from shared.migration.ledger import Entry, Ledger
from shared.migration.records import FaultRecord, FlagClearRecord, FlagSetRecord, Kind
from shared.migration.refusals import Code, Refusal
from shared.migration.states import CLONING_STATES, Flag, State


def decide_set(request: SetFlagRequest, ledger: Ledger, clock: Clock) -> FlagSetRecord | Entry:
    """The record that sets the flag, or the one that this request has left already.

    Raises:
        Refusal: `stale`, `not-allowed`, `journal-unsound`.
    """
    origin = request.origin
    refuse_unsound(ledger)
    refuse_gone_back(origin, ledger)
    refuse_stale(origin, ledger)
    present = ledger.operation(origin.operation_id, Kind.FLAG_SET)
    if present is not None:
        if present != ledger.flag_entry:
            raise stale(origin.migration, "the flag that it set is no longer the one in force")
        return present
    _refuse_wrong_attempt(origin, ledger)
    if ledger.tail.digest != request.tail_digest:
        raise stale(origin.migration, "something was recorded since that it was not decided on")
    return FlagSetRecord(
        migration=origin.migration,
        uuid=origin.uuid,
        attempt=origin.attempt,
        host=origin.host,
        run=origin.run,
        decision=origin.decision,
        operation_id=origin.operation_id,
        recorded_at=clock.now_rfc3339(),
        life=origin.life,
    )


def decide_clear(request: ClearFlagRequest, ledger: Ledger, clock: Clock) -> FlagClearRecord | Entry:
    """The record that clears the flag, or the one that has cleared it already.

    Raises:
        Refusal: `stale` when another flag is in force, or something was recorded that the request does not know of;
            `journal-unsound`.
    """
    origin = request.origin
    refuse_unsound(ledger)
    refuse_gone_back(origin, ledger)
    refuse_stale(origin, ledger)
    if (present := _cleared_already(request, ledger)) is not None:
        return present
    flag = ledger.flag_entry
    if ledger.flag is not Flag.SET or flag is None or flag.digest != request.set_digest:
        raise stale(origin.migration, "the flag that it names is not the one in force")
    _refuse_unknown_tail(request, ledger)
    return FlagClearRecord(
        migration=origin.migration,
        uuid=origin.uuid,
        attempt=origin.attempt,
        host=origin.host,
        run=origin.run,
        decision=origin.decision,
        operation_id=origin.operation_id,
        recorded_at=clock.now_rfc3339(),
        life=origin.life,
        set_digest=request.set_digest,
    )


def _refuse_wrong_attempt(origin: Origin, ledger: Ledger) -> None:
    """A flag is set for the attempt that is about to begin, or for one that goes on after a restart."""
    if ledger.state is State.SETUP:
        expected = ledger.attempt + 1
    elif ledger.state in CLONING_STATES and ledger.flag is not Flag.SET:
        expected = ledger.attempt
    else:
        raise Refusal(
            Code.NOT_ALLOWED, f"The error flag of {origin.migration!r} is not set in state {ledger.state}."
        )
    if origin.attempt != expected:
        raise stale(
            origin.migration,
            f"it is of attempt {origin.attempt}, and attempt {expected} is the one to set it",
        )


def _cleared_already(request: ClearFlagRequest, ledger: Ledger) -> Entry | None:
    flag = ledger.flag_entry
    if flag is None or not isinstance(flag.record, FlagClearRecord):
        return None
    return flag if flag.record.set_digest == request.set_digest else None


def _refuse_unknown_tail(request: ClearFlagRequest, ledger: Ledger) -> None:
    """Nothing but the request's own faults may follow the last record that the asker knew of."""
    own = {fault.operation_id for fault in request.faults}
    for entry in reversed(ledger.entries):
        if entry.digest == request.tail_digest:
            return
        if not (isinstance(entry.record, FaultRecord) and entry.record.operation_id in own):
            raise stale(
                request.origin.migration,
                f"a record of kind {entry.record.kind} was stored that it was not decided on",
            )
    raise stale(request.origin.migration, "the record that it was decided on is not in the journal")
