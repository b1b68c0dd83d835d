"""The operator's word as records: which side counts, that a migration is given up, that a damaged chain goes on. Pure.

Nobody else's decision may come in between: what was told to the operator has to be what the word is recorded on.
"""

from services.state_control.knowledge import Knowledge
from shared.clock import Clock
from shared.messages.standing import refuse_unsound
from shared.migration.devices import Side
from shared.migration.ledger import Entry, Ledger
from shared.migration.records import ADOPTED, Kind, RepairRecord, StateRecord, TombstoneRecord
from shared.migration.refusals import Code, InvariantError, Refusal
from shared.migration.states import State

_STATES = {Side.SOURCE: State.SETUP, Side.TARGET: State.COMMITTED}


def mending_of(operation: str) -> str:
    """The operation by which a damaged chain goes on, before the word itself."""
    return f"{operation}:mended"


def fault_of(operation: str) -> str:
    """The one by which the other side is told to be at fault, likewise."""
    return f"{operation}:fault"


def decide_adoption(
    knowledge: Knowledge, authority: Side, operation: str, ledger: Ledger, clock: Clock
) -> StateRecord | Entry:
    """The record of the word, or the one that is there already.

    Raises:
        Refusal: `journal-unsound`; `busy` when something was decided since the operator was told.
    """
    present = ledger.operation(operation, Kind.STATE, uuid=knowledge.uuid)
    if present is not None:
        return present
    refuse_unsound(ledger)
    _refuse_changed(knowledge, operation, ledger)
    if knowledge.status is None:
        raise InvariantError(f"{ledger.migration!r} is adopted for a host that does not answer")
    return StateRecord(
        migration=ledger.migration,
        uuid=str(ledger.uuid),
        attempt=max(ledger.attempt, _own_witness_attempt(knowledge)),
        host=knowledge.host,
        run=knowledge.status.run,
        decision=_next_decision(knowledge, ledger),
        operation_id=operation,
        recorded_at=clock.now_rfc3339(),
        state=_STATES[authority],
        authority=authority,
        trigger=ADOPTED,
        detail=f"the operator says that the {authority} holds what counts",
        devices=knowledge.devices,
    )


def decide_burial(
    knowledge: Knowledge, operation: str, ledger: Ledger, clock: Clock
) -> TombstoneRecord | Entry:
    """The record that a closed migration is given up; raises as `decide_adoption` does."""
    present = ledger.operation(operation, Kind.TOMBSTONE, uuid=knowledge.uuid)
    if present is not None:
        return present
    refuse_unsound(ledger)
    _refuse_changed(knowledge, operation, ledger)
    return TombstoneRecord(
        migration=ledger.migration,
        uuid=str(ledger.uuid),
        attempt=ledger.attempt,
        host=ledger.host,
        run=ledger.run,
        decision=_next_decision(knowledge, ledger),
        operation_id=operation,
        recorded_at=clock.now_rfc3339(),
        state=ledger.state or State.SETUP,
        given_up=True,
    )


def decide_mending(
    knowledge: Knowledge, authority: Side, operation: str, ledger: Ledger, clock: Clock
) -> RepairRecord | Entry:
    """The record from which a damaged chain goes on, by the operator's word instead of a witness's; raises likewise."""
    mending = mending_of(operation)
    present = ledger.operation(mending, Kind.REPAIR, uuid=knowledge.uuid)
    if present is not None:
        return present
    devices, status = knowledge.devices, knowledge.status
    if not ledger.exists and ledger.broken is None and ledger.has_had(knowledge.uuid):
        raise Refusal(
            Code.UNKNOWN_MIGRATION, f"{ledger.migration!r} was cleaned up: there is nothing to recover."
        )
    if devices is None or knowledge.uuid is None:
        raise Refusal(
            Code.JOURNAL_UNSOUND,
            f"Neither the journal nor a witness tells the devices of {ledger.migration!r} any more: remove the witness by "
            "hand, and set it up anew.",
        )
    witness = knowledge.witness
    return RepairRecord(
        migration=ledger.migration,
        uuid=knowledge.uuid,
        attempt=max(ledger.attempt, _own_witness_attempt(knowledge)),
        host=ledger.host or knowledge.host,
        run=ledger.run or (status.run if status is not None else 0),
        decision=max(ledger.decision, witness.decision if witness is not None else 0),
        operation_id=mending,
        recorded_at=clock.now_rfc3339(),
        life=ledger.life,
        witness_digest="",
        state=_STATES[authority],
        authority=authority,
        target_fault=False,
        source_fault=False,
        reason=f"the operator's word: {ledger.broken or 'the journal does not know it any more'}",
        devices=devices,
    )


def _own_witness_attempt(knowledge: Knowledge) -> int:
    witness = knowledge.witness
    return witness.attempt if witness is not None and witness.uuid == knowledge.uuid else 0


def _next_decision(knowledge: Knowledge, ledger: Ledger) -> int:
    """Above all that is known: also of a word that the journal has lost, for its host to know that this one is later."""
    witness, given = knowledge.witness, knowledge.given_away
    known = (each.decision for each in (ledger, witness, given) if each is not None)
    return max(known) + 1


def _refuse_changed(knowledge: Knowledge, operation: str, ledger: Ledger) -> None:
    """Refuse when anything was recorded since the operator was told, but what his word itself begins with.

    Not only decisions: a host that opens the volume again may leave no more than a flag.
    """
    told = knowledge.ledger
    own = {mending_of(operation), fault_of(operation)}
    since = (each.record for each in ledger.entries if each.record.index > told.tail.index)
    if any(record.operation_id not in own for record in since):
        raise _changed(ledger)
    if told.exists and (told.uuid, told.host) != (ledger.uuid, ledger.host):
        raise _changed(ledger)
    if told.broken is None and told.exists and told.decision != ledger.decision:
        raise _changed(ledger)


def _changed(ledger: Ledger) -> Refusal:
    return Refusal(Code.BUSY, f"Something was recorded of {ledger.migration!r} meanwhile: look again.")
