"""The operator's commands: checked against the table, decided by the host, recorded when the host reports them.

The host's decision comes to this service by another way, before the host answers; so a command holds nothing that the
recording of a decision needs.
"""

from collections.abc import Awaitable, Callable

from services.state_control.entering import Entering
from services.state_control.existing import Existing
from services.state_control.hosts import Hosts
from services.state_control.operations import done_before, operation_id
from services.state_control.picture import (
    Picture,
    current_picture,
    picture_of,
    picture_without_host,
    require_existing,
)
from services.state_control.turns import Turns
from shared.bus.appending import append_decided
from shared.bus.interface import Journal
from shared.clock import Clock
from shared.messages.control import (
    BYTES_PER_S_MAX,
    CleanupRequest,
    CommandReply,
    CommitRequest,
    PlainRequest,
    SetupRequest,
    ThrottleRequest,
    VouchRequest,
)
from shared.messages.host import DecidedReply, HostCommand, HostSetupRequest
from shared.messages.standing import refuse_unsound
from shared.migration.devices import Side
from shared.migration.ledger import Entry, Ledger
from shared.migration.records import IntentRecord, Kind
from shared.migration.refusals import Code, Refusal
from shared.migration.table import Trigger, allowed_commands, decide
from shared.migration.verifying import refuse_unverified

Command = Callable[[str, PlainRequest], Awaitable[CommandReply]]


class Commands:
    """Every command that changes something."""

    def __init__(
        self,
        *,
        journal: Journal,
        hosts: Hosts,
        existing: Existing,
        entering: Entering,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        """`new_id` makes UUIDs."""
        self._journal = journal
        self._hosts = hosts
        self._existing = existing
        self._entering = entering
        self._clock = clock
        self._new_id = new_id
        self._turns = Turns()

    async def setup(self, name: str, request: SetupRequest) -> CommandReply:
        """Pair two devices under a name that is free.

        Raises:
            Refusal: `name-taken`, `journal-unsound`, `host-unknown`, `host-away`, and whatever is wrong with a device.
        """
        operation = operation_id(request.operation_id, self._new_id)
        with self._turns.take(name, "setup"):
            ledger = await self._journal.read(name)
            if (done := done_before(ledger, operation, Trigger.SETUP)) is not None:
                return done
            refuse_unsound(ledger)
            if ledger.exists:
                raise Refusal(
                    Code.NAME_TAKEN, f"There is a migration {name!r} already, in state {ledger.state}."
                )
            host = await self._hosts.choose(request.host)
            await self._existing.require_free(name, host)
            asked = HostSetupRequest(
                uuid=self._new_id(),
                source=request.source,
                target=request.target,
                overwrite_target=request.overwrite_target,
                operation_id=operation,
            )
            decided = await self._hosts.command(host, "setup", name, asked)
            return _reply(name, decided.uuid or asked.uuid, decided)

    async def sync(self, name: str, request: PlainRequest) -> CommandReply:
        """Enter write cloning: the error flag is set first, and cleared again when the host refuses.

        Raises:
            Refusal: `not-allowed`, `outstanding-requests`, `journal-unsynced`, those of the host, and `host-away`.
        """
        operation = operation_id(request.operation_id, self._new_id)
        with self._turns.take(name, "sync"):
            ledger = await self._journal.read(name)
            if (done := done_before(ledger, operation, Trigger.SYNC)) is not None:
                return done
            picture = await self._allowed(ledger, Trigger.SYNC)
            decided = await self._entering.enter(picture, operation)
            return _reply(name, str(ledger.uuid), decided)

    def moving(self, trigger: Trigger) -> Command:
        """The command of a trigger that the host decides by itself: select-target, select-source, abort."""

        async def move(name: str, request: PlainRequest) -> CommandReply:
            return await self._move(name, trigger, request.operation_id)

        return move

    async def commit(self, name: str, request: CommitRequest) -> CommandReply:
        """Move to the target for good.

        Raises:
            Refusal: `not-allowed`, `not-verified`, `device-failed`, `host-away`…
        """
        return await self._move(name, Trigger.COMMIT, request.operation_id, verified=request.verified)

    async def cleanup(self, name: str, request: CleanupRequest) -> CommandReply:
        """Forget a migration.

        Raises:
            Refusal: `not-allowed`, `clients-connected`, `host-away`…
        """
        return await self._move(name, Trigger.CLEANUP, request.operation_id, disconnect=request.disconnect)

    def steering(self, command: str) -> Command:
        """A command that is for what goes on beside the application's I/O: pause, resume, verify."""

        async def steer(name: str, request: PlainRequest) -> CommandReply:
            return await self._steer(name, command, request.operation_id)

        return steer

    async def vouch(self, name: str, request: VouchRequest) -> CommandReply:
        """Pass on the operator's word that old connections to remote devices are gone, also where a host waits closed for it.

        Raises:
            Refusal: `host-away`, and those of the host.
        """
        operation = operation_id(request.operation_id, self._new_id)
        ledger = await self._journal.read(name)
        await self._existing.require(ledger)
        picture = picture_of(ledger, await self._hosts.check(ledger.host, name))
        doubt = picture.doubt if request.doubt is None else request.doubt
        asked = HostCommand(uuid=str(ledger.uuid), operation_id=operation, doubt=doubt)
        return _reply(name, asked.uuid, await self._hosts.command(ledger.host, "vouch", name, asked))

    async def throttle(self, name: str, request: ThrottleRequest) -> CommandReply:
        """Limit the copier.

        Raises:
            Refusal: `bad-request` for a limit that is none; `host-away`…
        """
        limit = request.bytes_per_s
        if limit is not None and not 1 <= limit <= BYTES_PER_S_MAX:
            raise Refusal(
                Code.BAD_REQUEST, f"bytes_per_s: from 1 to {BYTES_PER_S_MAX}, or null for no limit."
            )
        return await self._steer(name, "throttle", request.operation_id, bytes_per_s=limit)

    async def _move(
        self,
        name: str,
        trigger: Trigger,
        asked_operation: str | None,
        *,
        disconnect: bool = False,
        verified: bool | None = None,
    ) -> CommandReply:
        operation = operation_id(asked_operation, self._new_id)
        with self._turns.take(name, trigger):
            ledger = await self._journal.read(name)
            if (done := done_before(ledger, operation, trigger)) is not None:
                return done
            picture = await self._allowed(ledger, trigger)
            if trigger is Trigger.COMMIT:
                _refuse_unverified(picture, verified)
                await self._record_intent(picture, operation)
            command = HostCommand(
                uuid=str(ledger.uuid), operation_id=operation, disconnect=disconnect, verified=verified
            )
            decided = await self._hosts.command(ledger.host, trigger, name, command)
            return _reply(name, command.uuid, decided)

    async def _steer(
        self, name: str, command: str, asked_operation: str | None, *, bytes_per_s: int | None = None
    ) -> CommandReply:
        operation = operation_id(asked_operation, self._new_id)
        ledger = await self._journal.read(name)
        await self._existing.require(ledger)
        picture_of(ledger, await self._hosts.check(ledger.host, name)).require_open()
        asked = HostCommand(uuid=str(ledger.uuid), operation_id=operation, bytes_per_s=bytes_per_s)
        decided = await self._hosts.command(ledger.host, command, name, asked)
        return _reply(name, asked.uuid, decided)

    async def _allowed(self, ledger: Ledger, trigger: Trigger) -> Picture:
        """The migration as it is, in which the table allows the command and the host can be asked."""
        await self._existing.require(ledger)
        if trigger is not Trigger.ABORT:  # the way out is open whatever the journal is like
            refuse_unsound(ledger)
        try:
            status = await self._hosts.check(ledger.host, ledger.migration)
            picture = await current_picture(self._journal, ledger, status)
        except Refusal as away:
            _refuse_by_table(picture_without_host(ledger, away.message), trigger)
            raise
        if trigger is not Trigger.ABORT:
            picture.refuse_gone_back()
        _refuse_by_table(picture, trigger)
        picture.require_open()
        return picture

    async def _record_intent(self, picture: Picture, operation: str) -> None:
        """Note that a commit was asked for: whoever adopts the migration of a lost host must know."""

        def decide_intent(ledger: Ledger) -> IntentRecord | Entry:
            present = ledger.operation(operation, Kind.INTENT)
            if present is not None:
                return present
            require_existing(ledger)
            return IntentRecord(
                migration=ledger.migration,
                uuid=str(ledger.uuid),
                attempt=ledger.attempt,
                host=ledger.host,
                run=max(ledger.run, picture.run),
                decision=ledger.decision,
                operation_id=operation,
                recorded_at=self._clock.now_rfc3339(),
            )

        await append_decided(self._journal, picture.ledger.migration, decide_intent)


def _refuse_by_table(picture: Picture, trigger: Trigger) -> None:
    facts = picture.facts
    if trigger is Trigger.SYNC and trigger in allowed_commands(facts):
        return  # the flag that its row demands is set before the host is asked
    decide(facts, trigger)


def _refuse_unverified(picture: Picture, demanded: bool | None) -> None:
    """Refuse what the host will refuse, before an intent is recorded."""
    view = picture.view
    if view is not None and picture.authority is Side.SOURCE:
        refuse_unverified(
            view.name, verified_at=view.verified_at, needs_verify=view.needs_verify, demanded=demanded
        )


def _reply(name: str, uuid: str, decided: DecidedReply) -> CommandReply:
    return CommandReply(
        name=name,
        uuid=uuid,
        state=decided.state,
        authority=decided.authority,
        attempt=decided.attempt,
        decision=decided.decision,
        journal=decided.journal,
        message=decided.message,
        export_uri=decided.export_uri,
        verification=decided.verification,
    )
