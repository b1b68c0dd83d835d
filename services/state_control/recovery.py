"""Recovery of volumes that stay closed: what is known, and the operator's word recorded where it is given.

What each choice needs stands in `shared.migration.recovery`. The order of an adoption: the journal is made whole where it is
damaged, the side that is left gets its fault, then the word itself is recorded, and only then is the host asked to open.
"""

from collections.abc import Callable
from dataclasses import replace

from services.state_control.adoption import decide_adoption, decide_burial, decide_mending, fault_of
from services.state_control.describing import choice_views, reply_of, sides_known
from services.state_control.existing import Existing
from services.state_control.hosts import Hosts
from services.state_control.knowledge import Knowledge
from services.state_control.operations import operation_id
from services.state_control.turns import Turns
from services.state_control.unread import is_unread, refused, warning, who_has
from shared.bus.appending import append_decided
from shared.bus.interface import Journal, Requests
from shared.clock import Clock
from shared.messages.control import CommandReply, PlainRequest
from shared.messages.host import HostStatusReply, TryAgainRequest
from shared.messages.recording import FaultReport, Origin, RecordFaultRequest, StoredReply, record_subject
from shared.messages.recovery import (
    AdoptRequest,
    ExamineRequest,
    GiveUpRequest,
    RecoverRequest,
    RecoveryReply,
)
from shared.messages.standing import is_from_before
from shared.migration.devices import Side
from shared.migration.ledger import Entry, Ledger, fold
from shared.migration.records import StateRecord
from shared.migration.recovery import Choice, Consent, Standing, authority_after, offer
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State

RECORD_TIMEOUT_S = 10.0
CAUSE = "adopted"  # of the fault of the side that is left


class Recovery:
    """Answers `recover`, `try-again`, `adopt` and `give-up`."""

    def __init__(
        self,
        *,
        journal: Journal,
        requests: Requests,
        hosts: Hosts,
        existing: Existing,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        """`new_id` makes operation ids."""
        self._journal = journal
        self._requests = requests
        self._hosts = hosts
        self._existing = existing
        self._clock = clock
        self._new_id = new_id
        self._turns = Turns()

    async def look(self, name: str, request: RecoverRequest) -> RecoveryReply:
        """Everything that is known of one migration, and what may be done.

        Raises:
            Refusal: `unknown-migration`, `journal-unsound`, `host-unknown`, `journal-away`.
        """
        try:
            ledger = await self._journal.read(name)
        except Refusal as refusal:
            if not is_unread(refusal):
                raise
            knowledge = await self._know_without_journal(name, refusal)
        else:
            knowledge = await self._know(ledger, request.host)
        return reply_of(knowledge, sides_known(knowledge), choice_views(knowledge, request.host))

    async def try_again(self, name: str, _request: PlainRequest) -> CommandReply:
        """Have a closed migration judged anew, without restarting its host.

        Raises:
            Refusal: `not-admitted` when it stays closed, and why; `not-allowed` when there is nothing to recover.
        """
        with self._turns.take(name, "try-again"):
            knowledge = await self._know(await self._read(name), None)
            _require(Choice.TRY_AGAIN, knowledge, accept=False)
            return _opened(await self._admitted(knowledge), knowledge)

    async def adopt(self, name: str, request: AdoptRequest) -> CommandReply:
        """Record which side holds what counts, and have a host open it. Where it does not open, the answer says why.

        Raises:
            Refusal: `consent-needed` saying what may be lost; `not-allowed`; why the device cannot be used; `host-away`…
        """
        operation = operation_id(request.operation_id, self._new_id)
        with self._turns.take(name, "adopt"):
            knowledge = await self._know(await self._read(name), request.host)
            _require(_choice_of(request.authority), knowledge, accept=request.accept)
            if knowledge.status is None:
                raise Refusal(
                    Code.HOST_AWAY, f"Host {knowledge.host!r} does not answer; `--host` names another."
                )
            _refuse_open(knowledge.status, name)
            await self._refuse_given_away(knowledge)
            knowledge.refuse_unusable(request.authority)
            await self._mend(knowledge, request.authority, operation)
            await self._record_fault(knowledge, request.authority.other, operation)
            await self._refuse_opened(knowledge)
            entry, _ledger = await append_decided(
                self._journal,
                name,
                lambda ledger: decide_adoption(knowledge, request.authority, operation, ledger, self._clock),
            )
            try:
                return _opened(await self._admitted(knowledge), knowledge)
            except (
                Refusal
            ) as refusal:  # the word is given: whoever reads that it was refused believes it was not
                return _recorded(entry, request.authority, refusal)

    async def give_up(self, name: str, request: GiveUpRequest) -> CommandReply:
        """Forget a closed migration; the name is free.

        Raises:
            Refusal: `consent-needed`; `not-allowed`.
        """
        operation = operation_id(request.operation_id, self._new_id)
        with self._turns.take(name, "give-up"):
            knowledge = await self._know(await self._read(name), None)
            _require(Choice.GIVE_UP, knowledge, accept=request.accept)
            authority = knowledge.ledger.authority
            if knowledge.status is not None:
                _refuse_open(knowledge.status, name)
            await self._refuse_given_away(knowledge)
            if knowledge.is_told_of:
                await self._mend(knowledge, authority, operation)
                await self._refuse_opened(knowledge)
                await append_decided(
                    self._journal,
                    name,
                    lambda ledger: decide_burial(knowledge, operation, ledger, self._clock),
                )
            return CommandReply(
                name=name,
                uuid=knowledge.uuid or "",
                state=None,
                authority=authority,
                attempt=knowledge.ledger.attempt,
                decision=knowledge.ledger.decision + 1,
                message=await self._forgotten(knowledge),
            )

    async def _forgotten(self, knowledge: Knowledge) -> str:
        """Have its host forget what was given up; returns why the host keeps something closed under the name all the same."""
        if knowledge.standing is not Standing.CLOSED:
            return ""
        name = knowledge.ledger.migration
        request = TryAgainRequest(given_up=True, uuid=knowledge.uuid)
        try:
            status = await self._hosts.try_again(knowledge.host, name, request)
        except Refusal as refusal:  # it is given up: whoever reads that it was refused believes it is not
            return f"Host {knowledge.host!r} does not know it yet: {refusal.message}"
        why = next((each.message for each in status.closed if each.name == name), None)
        return "" if why is None else f"Host {knowledge.host!r} keeps another one of that name closed: {why}"

    # ------------------------------------------------------------------ what is known

    async def _read(self, name: str) -> Ledger:
        """The records, for a word that is to be recorded behind them."""
        try:
            return await self._journal.read(name)
        except Refusal as refusal:
            raise refused(refusal, name) if is_unread(refusal) else refusal from None

    async def _know_without_journal(self, name: str, refusal: Refusal) -> Knowledge:
        """What the host knows whose migration it is, where the records cannot be read."""
        status = await who_has(self._hosts, name)
        if status is None:
            raise Refusal(refusal.code, f"{refusal.message} No host that answers has {name!r}.")
        is_open = bool(status.migrations)
        return Knowledge(
            ledger=fold(name, ()),
            host=status.host,
            standing=Standing.OPEN if is_open else Standing.CLOSED,
            status=status,
            examined=None if is_open else await self._hosts.examine(status.host, name, ExamineRequest()),
            unread=warning(refusal, name, status.host, is_open=is_open),
        )

    async def _know(self, ledger: Ledger, wanted: str | None) -> Knowledge:
        name = ledger.migration
        up = await self._hosts.names()
        recorded = ledger.host or await self._keeping_closed(ledger, up)
        if not recorded:
            await self._existing.refuse_lost(name)
            raise Refusal(
                Code.UNKNOWN_MIGRATION,
                f"{name!r} was cleaned up: there is nothing to recover."
                if ledger.entries
                else f"Neither the journal nor a host knows {name!r}.",
            )
        host = wanted or recorded
        if wanted is not None and wanted not in up:
            named = f"the hosts that are up are: {', '.join(up)}" if up else "no host is up"
            raise Refusal(Code.HOST_UNKNOWN, f"Host {wanted!r} does not answer; {named}.")
        waits_because = None if recorded in up else await self._hosts.waiting(recorded)
        is_up = waits_because is not None or (
            host != recorded and recorded in up and not await self._has_let_go(ledger, recorded, host)
        )
        if host != recorded and is_up:
            raise Refusal(
                Code.NOT_ALLOWED,
                f"{name!r} belongs to host {recorded!r}, which is up: nobody takes it over. Stop that host for good first.",
            )
        status = await self._hosts.check(host, name) if host in up else None
        standing = Standing.AWAY if waits_because is None else Standing.WAITING
        if recorded in up and status is not None:
            standing = Standing.OPEN if status.migrations else Standing.CLOSED
        examined = None
        if status is not None and not status.migrations:
            examined = await self._hosts.examine(host, name, ExamineRequest(devices=ledger.devices))
        return Knowledge(
            ledger=ledger,
            host=host,
            standing=standing,
            status=status,
            examined=examined,
            waits_because=waits_because or "",
        )

    async def _has_let_go(self, ledger: Ledger, recorded: str, wanted: str) -> bool:
        """Whether the host whose it is by a journal that has gone back has in mind that the wanted one has it."""
        request = ExamineRequest(devices=ledger.devices)
        try:
            examined = await self._hosts.examine(recorded, ledger.migration, request)
        except Refusal:  # it has the volume open, or nobody knows
            return False
        return any(
            each.host == wanted
            and ledger.uuid in {None, each.uuid}
            and is_from_before(each, ledger, recorded)
            for each in examined.given_away
        )

    async def _keeping_closed(self, ledger: Ledger, up: list[str]) -> str:
        """The host that keeps closed what the journal does not know; empty when none does.

        One that was cleaned up is over, whatever a host has that has not asked since: its old witness may name the wrong side.
        """
        for host in up:
            closed = (await self._hosts.check(host, ledger.migration)).closed
            if any(not ledger.has_had(each.uuid) for each in closed):
                return host
        return ""

    # ------------------------------------------------------------------ what is recorded

    async def _mend(self, knowledge: Knowledge, authority: Side, operation: str) -> None:
        """Let a damaged chain go on, so that something can be recorded on it."""
        if knowledge.ledger.broken is None and knowledge.ledger.exists:
            return
        await append_decided(
            self._journal,
            knowledge.ledger.migration,
            lambda ledger: decide_mending(knowledge, authority, operation, ledger, self._clock),
        )

    async def _refuse_given_away(self, knowledge: Knowledge) -> None:
        """Refuse a word on what a host that is up has, where only the journal has forgotten that it has it."""
        given = knowledge.given_away
        if given is not None and given.host in await self._hosts.names():
            raise Refusal(
                Code.NOT_ALLOWED,
                f"{given.migration!r} was given to host {given.host!r}, which is up: the journal has gone back to before that. "
                "Stop that host for good first.",
            )

    async def _refuse_opened(self, knowledge: Knowledge) -> None:
        """Refuse a word on what is open by now: to look at its devices may have taken the host a minute."""
        if knowledge.status is None:
            return
        name = knowledge.ledger.migration
        _refuse_open(await self._hosts.check(knowledge.host, name), name)

    async def _record_fault(self, knowledge: Knowledge, side: Side, operation: str) -> None:
        """The side that is left can no longer be trusted in this attempt; one that was never cloned to needs no telling."""
        ledger = await self._journal.read(knowledge.ledger.migration)
        if ledger.attempt == 0 or ledger.fault_count(side):
            return
        origin = Origin(
            migration=ledger.migration,
            uuid=str(ledger.uuid),
            attempt=ledger.attempt,
            host=ledger.host,
            run=ledger.run,
            decision=ledger.decision,
            operation_id=fault_of(operation),
            relies_on=ledger.tail.digest,
            life=ledger.life,
        )
        fault = FaultReport(
            operation_id=origin.operation_id,
            side=side,
            state=ledger.state or State.SETUP,
            attempt=ledger.attempt,
            operation="adopt",
            cause=CAUSE,
            detected_at=self._clock.now_rfc3339(),
        )
        await self._requests.request(
            record_subject("fault", origin.host, ledger.migration),
            RecordFaultRequest(origin=origin, fault=fault),
            StoredReply,
            timeout_s=RECORD_TIMEOUT_S,
        )

    async def _admitted(self, knowledge: Knowledge) -> HostStatusReply:
        return await self._hosts.try_again(knowledge.host, knowledge.ledger.migration, TryAgainRequest())


def _choice_of(authority: Side) -> Choice:
    return Choice.ADOPT_SOURCE if authority is Side.SOURCE else Choice.ADOPT_TARGET


def _require(choice: Choice, knowledge: Knowledge, *, accept: bool) -> None:
    made = offer(choice, knowledge.known)
    name = knowledge.ledger.migration
    if made.consent is Consent.REFUSED:
        _tell_what_the_device_lacks(choice, knowledge)
        raise Refusal(Code.NOT_ALLOWED, f"{choice} of {name!r} is refused: {made.reason}.")
    if made.consent is Consent.ASKS and not accept:
        raise Refusal(
            Code.CONSENT_NEEDED, f"{choice} of {name!r} asks first: {made.reason}. If that is so, say accept."
        )


def _tell_what_the_device_lacks(choice: Choice, knowledge: Knowledge) -> None:
    """Refuse with the device's own code, where nothing but the device is in the way."""
    side = authority_after(choice)
    known = replace(knowledge.known, unusable={})
    if side is not None and offer(choice, known).consent is not Consent.REFUSED:
        knowledge.refuse_unusable(side)


def _refuse_open(status: HostStatusReply, name: str) -> None:
    """Refuse a word on what its host has open, or is opening by what the journal held before."""
    if status.migrations:
        raise Refusal(Code.BUSY, f"Host {status.host!r} has opened {name!r} meanwhile: look again.")
    if name in status.opening:
        raise Refusal(Code.BUSY, f"Host {status.host!r} is opening {name!r}: look again.")


def _recorded(entry: Entry, authority: Side, why_closed: Refusal) -> CommandReply:
    record = entry.record
    return CommandReply(
        name=record.migration,
        uuid=record.uuid,
        state=record.state if isinstance(record, StateRecord) else None,
        authority=authority,
        attempt=record.attempt,
        decision=record.decision,
        witness=False,
        message=f"The word for the {authority} is recorded. {why_closed.message}",
    )


def _opened(status: HostStatusReply, knowledge: Knowledge) -> CommandReply:
    """What became of it.

    Raises:
        Refusal: (`not-admitted`) it is closed all the same.
    """
    name = knowledge.ledger.migration
    view = next((each for each in status.migrations if each.name == name), None)
    if view is None:
        why = next(
            (each.message for each in status.closed if each.name == name),
            "the host does not have it any more",
        )
        raise Refusal(Code.NOT_ADMITTED, f"{name} is closed: {why}")
    return CommandReply(
        name=name,
        uuid=view.uuid,
        state=view.state,
        authority=view.authority,
        attempt=view.attempt,
        decision=view.decision,
        export_uri=view.export_uri,
    )
