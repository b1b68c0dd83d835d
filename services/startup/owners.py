"""The owners of the journal's subjects, as startup asks them. Whatever is stored, one of them has stored it.

Every operation id follows from what was decided on, and from nothing else: a startup that is repeated, after a crash at
any point, asks for the same operations, and finds those done that were done.
"""

from shared.bus.interface import Requests
from shared.clock import Clock
from shared.messages.admission import WitnessView
from shared.messages.recording import (
    ClearFlagRequest,
    DecisionRequest,
    FaultReport,
    Origin,
    RecordFaultRequest,
    RepairRequest,
    SetFlagRequest,
    StoredReply,
    decision_subject,
    record_subject,
    repair_subject,
)
from shared.messages.standing import STARTUPS_OWN
from shared.migration.devices import Side
from shared.migration.ledger import Entry, Ledger
from shared.migration.records import UNCLEAN_SHUTDOWN
from shared.migration.refusals import InvariantError
from shared.migration.states import State
from shared.migration.verdicts import Verdict

REQUEST_TIMEOUT_S = 10.0
_SET_PREFIX = "startup:set:"


def is_own(entry: Entry) -> bool:
    """Whether startup has asked for a record. Nobody else may begin an operation id like that."""
    return entry.record.operation_id.startswith(STARTUPS_OWN)


def is_own_set(entry: Entry) -> bool:
    """Whether startup has set the flag by this record."""
    return entry.record.operation_id.startswith(_SET_PREFIX)


class Owners:
    """Asks on behalf of one run of one host."""

    def __init__(self, requests: Requests, clock: Clock, *, host: str, run: int, life: str) -> None:
        self._requests = requests
        self._life = life
        self._clock = clock
        self._host = host
        self._run = run

    def has_recorded(self, ledger: Ledger) -> bool:
        """Whether the journal holds anything of this run of this host."""
        return (ledger.host, ledger.run) == (self._host, self._run)

    async def repair(self, witness: WitnessView, ledger: Ledger, reason: str) -> StoredReply:
        """Let a damaged chain go on with what the witness holds; the flag counts as set from then on."""
        if witness.state is None:  # it was being removed: the removal follows, as the next decision
            state = ledger.state or _resting_state(witness.authority)
            decision = witness.decision - 1
        else:
            state, decision = witness.state, witness.decision
        origin = Origin(
            migration=witness.migration,
            uuid=witness.uuid,
            attempt=witness.attempt,
            host=self._host,
            run=self._run,
            decision=max(decision, ledger.decision),
            operation_id=f"startup:repair:{witness.tail_digest}:{ledger.tail.index}:{ledger.tail.sequence}",
            life=self._life,
        )
        request = RepairRequest(
            origin=origin,
            witness_digest=witness.tail_digest,
            state=state,
            authority=witness.authority,
            target_fault=any(fault.side is Side.TARGET for fault in witness.faults),
            source_fault=any(fault.side is Side.SOURCE for fault in witness.faults),
            reason=reason,
            devices=witness.devices,
        )
        return await self._ask(repair_subject(self._host, witness.migration), request)

    async def record_decision(self, witness: WitnessView, ledger: Ledger) -> StoredReply:
        """Have the journal hold the last decision of the witness."""
        origin = Origin(
            migration=witness.migration,
            uuid=witness.uuid,
            attempt=witness.attempt,
            host=self._host,
            run=self._run,
            decision=witness.decision,
            operation_id=witness.operation_id,
            relies_on=witness.tail_digest,
            life=self._life,
        )
        request = DecisionRequest(
            origin=origin,
            state=witness.state,
            authority=witness.authority,
            trigger=witness.trigger,
            detail=witness.detail,
            devices=None if ledger.exists else witness.devices,
        )
        return await self._ask(decision_subject(self._host, witness.migration), request)

    async def record_fault(self, fault: FaultReport, ledger: Ledger) -> StoredReply:
        """Have the journal hold a fault."""
        request = RecordFaultRequest(origin=self._origin(ledger, fault.operation_id), fault=fault)
        return await self._ask(record_subject("fault", self._host, ledger.migration), request)

    async def record_unclean(self, ledger: Ledger) -> StoredReply:
        """Have the journal hold that the stop was not clean: a fault of the target."""
        flag = ledger.flag_entry.digest if ledger.flag_entry is not None else "never"
        if ledger.state is None:
            raise InvariantError(f"{ledger.migration!r} is judged without a state")
        fault = FaultReport(
            operation_id=f"startup:unclean:{ledger.uuid}:{ledger.attempt}:{flag}",
            side=Side.TARGET,
            state=ledger.state,
            attempt=ledger.attempt,
            operation="shutdown",
            cause=UNCLEAN_SHUTDOWN,
            detected_at=self._clock.now_rfc3339(),
        )
        return await self.record_fault(fault, ledger)

    async def record_error_transition(self, ledger: Ledger, verdict: Verdict) -> StoredReply:
        """Decide the way back to `setup` for a host that is down."""
        decision = ledger.decision + 1
        operation = f"startup:{verdict.label}:{ledger.uuid}:{decision}"
        request = DecisionRequest(
            origin=self._origin(ledger, operation, decision=decision),
            state=State.SETUP,
            authority=Side.SOURCE,
            trigger=verdict.label,
            detail=verdict.reason,
        )
        return await self._ask(decision_subject(self._host, ledger.migration), request)

    async def record_opening(self, ledger: Ledger, verdict: Verdict) -> StoredReply:
        """Have the journal hold that this run opens the volume, where it holds nothing else of this run.

        A state directory that is put back from before this run is known by that; and an earlier run that still has the volume
        open, as on another machine of that name, sees by it that it has it no more.
        """
        if ledger.state is None:
            raise InvariantError(f"{ledger.migration!r} is judged without a state")
        decision = ledger.decision + 1
        operation = f"startup:opened:{ledger.uuid}:{decision}"
        request = DecisionRequest(
            origin=self._origin(ledger, operation, decision=decision),
            state=ledger.state,
            authority=ledger.authority,
            trigger=verdict.label,
            detail=f"opened by run {self._run} of its host",
        )
        return await self._ask(decision_subject(self._host, ledger.migration), request)

    async def set_flag(self, ledger: Ledger) -> StoredReply:
        """Set the flag anew for a migration that goes on cloning, on the tail that was judged."""
        cleared = ledger.flag_entry.digest if ledger.flag_entry is not None else f"{ledger.uuid}:never"
        return await self._set_flag(ledger, f"{_SET_PREFIX}{cleared}")

    async def confirm_flag(self, ledger: Ledger) -> StoredReply:
        """Have the flag that is in force told to be durable: nothing is stored for it."""
        if ledger.flag_entry is None:
            raise InvariantError(f"{ledger.migration!r} has no flag to confirm")
        return await self._set_flag(ledger, ledger.flag_entry.record.operation_id)

    async def _set_flag(self, ledger: Ledger, operation: str) -> StoredReply:
        request = SetFlagRequest(origin=self._origin(ledger, operation), tail_digest=ledger.tail.digest)
        return await self._ask(record_subject("flag-set", self._host, ledger.migration), request)

    async def clear_flag(self, ledger: Ledger) -> StoredReply:
        """Clear the flag that is in force, on the tail that was judged."""
        if ledger.flag_entry is None:
            raise InvariantError(f"{ledger.migration!r} has no flag to clear")
        set_digest = ledger.flag_entry.digest
        request = ClearFlagRequest(
            origin=self._origin(ledger, f"startup:clear:{set_digest}"),
            set_digest=set_digest,
            tail_digest=ledger.tail.digest,
        )
        return await self._ask(record_subject("flag-clear", self._host, ledger.migration), request)

    def _origin(self, ledger: Ledger, operation: str, *, decision: int | None = None) -> Origin:
        return Origin(
            migration=ledger.migration,
            uuid=str(ledger.uuid),
            attempt=ledger.attempt,
            host=self._host,
            run=self._run,
            decision=ledger.decision if decision is None else decision,
            operation_id=operation,
            relies_on=ledger.tail.digest,
            life=self._life,
        )

    async def _ask(self, subject: str, request: object) -> StoredReply:
        return await self._requests.request(subject, request, StoredReply, timeout_s=REQUEST_TIMEOUT_S)


def _resting_state(authority: Side) -> State:
    """The state that a migration which is being removed was in, where nothing else tells."""
    return State.COMMITTED if authority is Side.TARGET else State.SETUP
