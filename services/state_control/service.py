"""What state_control answers: commands, inquiries, and decisions that are to be recorded."""

from collections.abc import Callable, Sequence

from services.state_control.commands import Commands
from services.state_control.decisions import decide_record, decide_repair
from services.state_control.entering import Entering
from services.state_control.existing import Existing
from services.state_control.hosts import Hosts
from services.state_control.inquiries import Inquiries
from services.state_control.recovery import Recovery
from services.state_control.telling import told
from shared.bus.appending import append_decided
from shared.bus.interface import Discovery, Durability, Endpoint, Handler, Journal, Requests
from shared.clock import Clock
from shared.messages.control import (
    FAULTS_SUBJECT,
    LIST_SUBJECT,
    CleanupRequest,
    CommitRequest,
    PlainRequest,
    SetupRequest,
    ThrottleRequest,
    VouchRequest,
    control_subject,
)
from shared.messages.recording import (
    DecisionRequest,
    RepairRequest,
    StoredReply,
    decision_subject,
    repair_subject,
)
from shared.messages.recovery import AdoptRequest, GiveUpRequest, RecoverRequest
from shared.messages.standing import refuse_mislabelled
from shared.migration.table import Trigger

SERVICE_NAME = "cutover-state-control"
_QUESTIONS = frozenset({"query", "recover", "faults"})  # they change nothing


class StateControl:
    """The only writer of state subjects."""

    def __init__(
        self,
        *,
        journal: Journal,
        requests: Requests,
        discovery: Discovery,
        durability: Durability,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        """`new_id` makes UUIDs; the clock only says when something was."""
        self._journal = journal
        self._clock = clock
        hosts = Hosts(requests, discovery)
        existing = Existing(journal, hosts)
        entering = Entering(journal=journal, requests=requests, hosts=hosts)
        self._commands = Commands(
            journal=journal, hosts=hosts, existing=existing, entering=entering, clock=clock, new_id=new_id
        )
        self._recovery = Recovery(
            journal=journal, requests=requests, hosts=hosts, existing=existing, clock=clock, new_id=new_id
        )
        self._inquiries = Inquiries(
            journal=journal, hosts=hosts, existing=existing, durability=durability, clock=clock
        )

    def endpoints(self) -> Sequence[Endpoint]:
        """What is served."""
        commands, inquiries, recovery = self._commands, self._inquiries, self._recovery
        of_one: tuple[tuple[str, type, Handler], ...] = (
            ("setup", SetupRequest, commands.setup),
            ("sync", PlainRequest, commands.sync),
            ("pause", PlainRequest, commands.steering("pause")),
            ("resume", PlainRequest, commands.steering("resume")),
            ("throttle", ThrottleRequest, commands.throttle),
            ("select-target", PlainRequest, commands.moving(Trigger.SELECT_TARGET)),
            ("select-source", PlainRequest, commands.moving(Trigger.SELECT_SOURCE)),
            ("verify", PlainRequest, commands.steering("verify")),
            ("commit", CommitRequest, commands.commit),
            ("abort", PlainRequest, commands.moving(Trigger.ABORT)),
            ("cleanup", CleanupRequest, commands.cleanup),
            ("vouch", VouchRequest, commands.vouch),
            ("query", PlainRequest, inquiries.query),
            ("recover", RecoverRequest, recovery.look),
            ("try-again", PlainRequest, recovery.try_again),
            ("adopt", AdoptRequest, recovery.adopt),
            ("give-up", GiveUpRequest, recovery.give_up),
            ("faults", PlainRequest, inquiries.faults),
        )
        subjects: tuple[tuple[str, str, type, Handler], ...] = (
            *(
                (
                    name,
                    control_subject(name, "*"),
                    request,
                    handler if name in _QUESTIONS else told(name, handler),
                )
                for name, request, handler in of_one
            ),
            ("list", LIST_SUBJECT, PlainRequest, inquiries.list_all),
            ("all-faults", FAULTS_SUBJECT, PlainRequest, inquiries.faults),
            ("decision", decision_subject("*", "*"), DecisionRequest, self.record_decision),
            ("repair", repair_subject("*", "*"), RepairRequest, self.record_repair),
        )
        return tuple(
            Endpoint(name=name, subject=subject, request=request, handler=handler)
            for name, subject, request, handler in subjects
        )

    async def record_decision(self, host: str, migration: str, request: DecisionRequest) -> StoredReply:
        """Append a decision.

        Raises:
            Refusal: `bad-request`; those of `decide_record` and of the journal.
        """
        refuse_mislabelled(host, migration, request.origin)
        entry, _ledger = await append_decided(
            self._journal, migration, lambda ledger: decide_record(request, ledger, self._clock)
        )
        return StoredReply.of(entry)

    async def record_repair(self, host: str, migration: str, request: RepairRequest) -> StoredReply:
        """Let a damaged chain go on.

        Raises:
            Refusal: `bad-request`; those of `decide_repair` and of the journal.
        """
        refuse_mislabelled(host, migration, request.origin)
        entry, _ledger = await append_decided(
            self._journal, migration, lambda ledger: decide_repair(request, ledger, self._clock)
        )
        return StoredReply.of(entry)
