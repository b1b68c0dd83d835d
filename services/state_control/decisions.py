"""Decisions that were made, by a host or by startup for it: when they are taken, and the records that tell of them.

A decision is durable in the host's witness before it comes here. It is recorded whatever the journal's state or faults
say; only what is from the past, or of another migration, is refused.
"""

from shared.clock import Clock
from shared.messages.recording import DecisionRequest, Origin, RepairRequest
from shared.messages.standing import (
    refuse_gone_back,
    refuse_judged_before,
    refuse_older_attempt,
    refuse_stale,
    refuse_unsound,
    stale,
)
from shared.migration.ledger import Entry, Ledger
from shared.migration.records import ADOPTED, Kind, RepairRecord, StateRecord, TombstoneRecord
from shared.migration.refusals import Code, Refusal
from shared.migration.table import Trigger


def decide_record(
    request: DecisionRequest, ledger: Ledger, clock: Clock
) -> StateRecord | TombstoneRecord | Entry:
    """The record of a decision, or the one that is there already.

    Raises:
        Refusal: `stale`, `unknown-migration`, `name-taken`, `journal-unsound`.
    """
    origin = request.origin
    if request.trigger == ADOPTED:
        raise Refusal(Code.BAD_REQUEST, f"{ADOPTED} is an operator's word, and no decision of a host.")
    refuse_gone_back(origin, ledger)  # even a decision that is there: whoever has it confirmed builds on it
    if (present := _present(request, ledger)) is not None:
        return present
    refuse_unsound(ledger)
    if request.trigger == Trigger.SETUP:
        _refuse_second_setup(request, ledger)
    else:
        refuse_stale(origin, ledger)
        refuse_older_attempt(origin.migration, origin.attempt, ledger)
        if origin.decision == ledger.decision:
            raise stale(origin.migration, f"another decision of number {origin.decision} is recorded")
        refuse_judged_before(origin, origin.operation_id, ledger)
    if request.state is None:
        return _tombstone(origin, ledger, clock)
    return StateRecord(
        migration=origin.migration,
        uuid=origin.uuid,
        attempt=origin.attempt,
        host=origin.host,
        run=origin.run,
        decision=origin.decision,
        operation_id=origin.operation_id,
        recorded_at=clock.now_rfc3339(),
        life=origin.life,
        state=request.state,
        authority=request.authority,
        trigger=request.trigger,
        detail=request.detail,
        devices=None if ledger.exists else request.devices,
    )


def decide_repair(request: RepairRequest, ledger: Ledger, clock: Clock) -> RepairRecord | Entry:
    """The record from which a chain goes on, or the one that is there already.

    Raises:
        Refusal: `not-allowed` when the chain is whole and contains the witness's record; `stale`.
    """
    origin = request.origin
    present = ledger.operation(origin.operation_id, Kind.REPAIR, uuid=origin.uuid)
    if present is not None:
        return present
    if ledger.broken is None and ledger.contains(request.witness_digest):
        raise Refusal(
            Code.NOT_ALLOWED, f"The journal of {origin.migration!r} is whole: nothing is to be repaired."
        )
    if ledger.exists:
        refuse_stale(origin, ledger)
        refuse_older_attempt(origin.migration, origin.attempt, ledger)
    return RepairRecord(
        migration=origin.migration,
        uuid=origin.uuid,
        attempt=origin.attempt,
        host=origin.host,
        run=origin.run,
        decision=origin.decision,
        operation_id=origin.operation_id,
        recorded_at=clock.now_rfc3339(),
        life=origin.life,
        witness_digest=request.witness_digest,
        state=request.state,
        authority=request.authority,
        target_fault=request.target_fault,
        source_fault=request.source_fault,
        reason=request.reason,
        devices=request.devices,
    )


def _present(request: DecisionRequest, ledger: Ledger) -> Entry | None:
    """What the same decision has left. A chosen operation id may come twice; a decision's number never does."""
    kind = Kind.TOMBSTONE if request.state is None else Kind.STATE
    present = ledger.operation(request.origin.operation_id, kind, uuid=request.origin.uuid)
    if present is None:
        return None
    record, origin = present.record, request.origin
    same = (record.uuid, record.host, record.decision) == (origin.uuid, origin.host, origin.decision)
    return present if same else None


def _refuse_second_setup(request: DecisionRequest, ledger: Ledger) -> None:
    origin = request.origin
    if ledger.exists:
        if ledger.uuid == origin.uuid:
            raise stale(origin.migration, "it has been set up long since")
        raise Refusal(Code.NAME_TAKEN, f"There is a migration {origin.migration!r} already.")
    if ledger.has_had(origin.uuid):
        raise stale(origin.migration, "it was cleaned up meanwhile")
    if request.state is None or request.devices is None:
        raise Refusal(
            Code.BAD_REQUEST, f"The first decision of {origin.migration!r} names no state or no devices."
        )


def _tombstone(origin: Origin, ledger: Ledger, clock: Clock) -> TombstoneRecord:
    if ledger.state is None:
        raise Refusal(Code.UNKNOWN_MIGRATION, f"There is no migration {origin.migration!r}.")
    return TombstoneRecord(
        migration=origin.migration,
        uuid=origin.uuid,
        attempt=origin.attempt,
        host=origin.host,
        run=origin.run,
        decision=origin.decision,
        operation_id=origin.operation_id,
        recorded_at=clock.now_rfc3339(),
        life=origin.life,
        state=ledger.state,
    )
