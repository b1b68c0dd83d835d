"""The decision point of one migration: commands and device errors meet here, one at a time, so no two decisions race.

A decision is a row of the state table, chosen by what the witness, the journal and the noted faults say. Nothing here decides
what is allowed; the table does. How a decision is carried out and made durable is the executor's business.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from services.write_cloning.apparatus import Apparatus
from services.write_cloning.copier import Copier
from services.write_cloning.devices.interface import Device
from services.write_cloning.entering import Entering
from services.write_cloning.executor import Decision, Executor
from services.write_cloning.faults import Faults
from services.write_cloning.fences import unfenced_sides
from services.write_cloning.journal_look import JournalLook
from services.write_cloning.keeper import WITNESS_RETRY_S, Keeper
from services.write_cloning.last_changes import UNKNOWN, last_changes
from services.write_cloning.map_decisions import MapDecisions
from services.write_cloning.map_keeper import MapKeeper
from services.write_cloning.region_cells import RegionCells
from services.write_cloning.reporter import Reporter
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.verification import Verification
from services.write_cloning.verifying import ATTACHED, Verifying
from services.write_cloning.volume.failures import Failure
from services.write_cloning.volume.requests import Request
from services.write_cloning.vouching import Vouching
from services.write_cloning.witness import Witness
from shared.logs.about import about
from shared.messages.host import DecidedReply, EnterRequest, HostCommand
from shared.messages.recording import FaultReport
from shared.messages.standing import untold
from shared.migration.devices import Side
from shared.migration.ledger import Ledger
from shared.migration.refusals import Code, InvariantError, Refusal
from shared.migration.states import CLONING_STATES, Flag, State
from shared.migration.table import Facts, Transition, Trigger, decide, with_faults
from shared.migration.verifying import refuse_unverified

log = logging.getLogger(__name__)

# Refusals of what is copied that may not last: a witness that cannot be written, a source that is slow to flush.
_PASSING = frozenset({Code.INTERNAL, Code.BUSY})
_TRUSTING_THE_TARGET = frozenset({Trigger.SELECT_TARGET, Trigger.COMMIT})


class Migration:
    """One migration on this host."""

    def __init__(
        self, *, witness: Witness, source: Device, target: Device, maps: MapKeeper, around: Surroundings
    ) -> None:
        """Take over two devices, a witness that is on disk, and the map that it trusts. The volume stays closed until `begin`."""
        self._around = around
        self._keeper = Keeper(witness, around.witnesses)
        self._deciding = asyncio.Lock()
        self.reporter = Reporter(self._keeper, around)
        self.journal = JournalLook(self._keeper, around)
        self.entering = Entering(self._keeper, self.reporter)
        self._faults = Faults(self._keeper, self.reporter, around)
        self.apparatus = Apparatus(
            name=witness.migration,
            devices=witness.devices,
            source=source,
            target=target,
            listener=self,
            around=around,
            maps=maps,
        )
        self.region_cells = RegionCells(len(maps.marks.states))
        self.apparatus.throttle.limit(witness.throttle_bytes_per_s)
        self._map_decisions = MapDecisions(self._keeper, self.apparatus, around)
        self._executor = Executor(
            keeper=self._keeper,
            reporter=self.reporter,
            faults=self._faults,
            apparatus=self.apparatus,
            map_decisions=self._map_decisions,
            copied=self.copied,
            around=around,
        )
        self._verifying = Verifying(self._keeper, self.apparatus, self._executor, around.clock)
        self.vouching = Vouching(self._keeper, self.apparatus.left_behind, around.run)
        self._is_stopping = False
        self._are_faults_due = False  # to be kept, when their turn comes
        self._tasks: list[asyncio.Task[None]] = []
        if witness.state is not None:
            used = unfenced_sides(witness.devices, witness.state, witness.authority)
            self.apparatus.left_behind.in_doubt = tuple(side for side in witness.unfenced if side not in used)
        self.apparatus.left_behind.when_released = self._note_released

    @property
    def witness(self) -> Witness:
        """What was decided last, as it is on disk."""
        return self._keeper.witness

    @property
    def name(self) -> str:
        """The migration's name."""
        return self.witness.migration

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should look at now."""
        journal = (self.journal.trouble,) if self.journal.trouble else ()
        wait = self.reporter.waiting
        waiting = (untold(self.name, wait),) if wait is not None and wait.why else ()
        trouble = self.apparatus.application_trouble
        return (*self._witness_warnings(), *journal, *waiting, *((trouble,) if trouble else ()))

    def _witness_warnings(self) -> tuple[str, ...]:
        if not (trouble := self._keeper.trouble):
            return self.apparatus.left_behind.warnings
        message = f"{self.name}: writes wait for the host's witness, which cannot be written: {trouble}"
        return (f"{message}. Make room in host.state_dir.",)

    @property
    def unstored_faults(self) -> tuple[FaultReport, ...]:
        """Faults that the journal does not hold yet."""
        return (*self._faults.unreported, *self.reporter.unstored_faults)

    # ------------------------------------------------------------------ life

    def begin(self, *, target_missing: str = "") -> None:
        """Open the volume in the state that the witness holds. In `syncing`, copying goes on from the map.

        Where the target could not be opened, for the reason given, that is a fault of it like any other.
        """
        witness = self.witness
        if witness.state is None:
            raise InvariantError(f"{self.name} was removed and is to begin")
        marking = self.apparatus.maps.run(self._map_decisions.distrust)
        for endless in (self.reporter.run(), self.apparatus.watch(), marking):
            self._tasks.append(self._around.tasks.create_task(endless, name=f"look after {self.name}"))
        self.apparatus.switch_routing(witness.state, witness.authority)
        if target_missing:
            self.apparatus.volume.failover.target_failed(
                Failure(side=Side.TARGET, operation="open", cause=target_missing)
            )
        self._executor.open_volume()
        if witness.state is State.SYNCING and not target_missing:
            self.apparatus.due_regions = self.apparatus.maps.due_regions
            self._executor.start_copying()

    async def stop(self) -> bool:
        """Refuse application I/O, finish what is under way, flush, and have the flag cleared.

        Returns whether the stop was clean: the authority was flushed and the journal holds everything. Otherwise the flag
        stays set, which costs a resync and nothing else.
        """
        self._is_stopping = True
        await self.apparatus.volume.close()
        async with self._deciding:
            await self.apparatus.stop_copying()
            await self.apparatus.stop_verifying("the host stopped")
            failure = await self.apparatus.flush_all()
            if (
                self._executor.has_lost_target
            ):  # its own event comes too late: the flag is to be cleared after this
                row = decide(self.witness.facts, Trigger.TARGET_FAULT)
                decision = self._decision(row, self._next_operation_id(), detail="at the stop")
                await self._executor.carry_out(decision)
            elif failure is None and self.witness.state in CLONING_STATES:
                await self.apparatus.maps.save(self._map_decisions.distrust)
            await self._faults.keep()
            if failure is not None:
                log.error("the authority could not be flushed: %s", failure.cause, extra=about(self.name))
                return False
            if self.witness.state is not None:
                await self._keeper.amend(last_changes=UNKNOWN)
            if self.witness.state in CLONING_STATES:
                self.reporter.want_clear()
        return await self.reporter.settled(self._around.limits.journal_wait_s)

    async def hand_over(self) -> None:
        """Serve no more, and let go of the devices, which are another host's by an operator's word.

        From the call on no request is taken and nothing more is copied; what is under way ends as always. Nothing is asked of
        the journal, least of all that the flag is clear: this host's stop proves nothing any more.

        A word that did not know that the volume was served is not believed after that, whatever it says: the witness counts as
        decided no earlier. Another word, which knows of it, is.
        """
        self._is_stopping = True
        await asyncio.gather(
            self.apparatus.volume.close(),
            self.apparatus.stop_copying(),
            self.apparatus.stop_verifying("another host has the devices"),
            self._around.exports.remove(self.name),
        )
        async with self._deciding:
            await self.apparatus.stop_copying()  # a decision that was under way may have begun to
            try:
                await self._outlast(self.journal.unknown_word)
            finally:
                await self.release()

    async def _outlast(self, word: int) -> None:
        if word > self.witness.decision:
            await self._keeper.amend(decision=word, operation_id=f"{self.witness.uuid}:decision:{word}")

    async def release(self) -> None:
        """End the tasks and close the devices; the volume is closed."""
        for task in self._tasks:
            task.cancel()
        await self.apparatus.source.close()
        await self.apparatus.target.close()
        await self.apparatus.maps.release()
        await self.apparatus.left_behind.let_go()
        if self.witness.last_changes:
            await self._note_last_changes()
        await self.vouching.note_the_end()

    async def _note_last_changes(self) -> None:
        open_sides = self.apparatus.open_sides
        changes = await last_changes(self.witness.devices, self._around.opener, open_sides=open_sides)
        try:
            await self._keeper.amend(last_changes=changes)
        except OSError as error:  # at worst everything is copied again
            log.warning("when the devices were changed could not be noted: %s", error, extra=about(self.name))

    # ------------------------------------------------------------------ commands

    async def enter(self, request: EnterRequest) -> DecidedReply:
        """Enter write cloning under the flag that was set for it.

        Raises:
            Refusal: the flag is not the last record of its kind or is spent, the attempt is not the next one, the table or
                the target does not allow it. Nothing was cloned.
        """
        if not self._is_done(request):
            ledger = await self.entering.look(request, self.journal.ledger())
            await self._in_turn(self._enter(request, ledger))
        decided = await self.confirm()
        if not self.witness.paused or self.witness.state is not State.SYNCING:
            return decided
        paused = f"The copier is paused: `cutover resume {self.name}` lets it go on."
        return replace(decided, message=f"{paused} {decided.message}".rstrip())

    async def _enter(self, request: EnterRequest, ledger: Ledger) -> None:
        with self.entering.turn(request):
            if self._is_done(request):
                return
            await self._faults.keep()  # those of the last attempt are no business of the next
            await self._executor.carry_out(self.entering.decision(request, ledger))

    async def command(self, trigger: Trigger, request: HostCommand) -> DecidedReply:
        """Carry out a command of the table.

        Raises:
            Refusal: the table does not allow it, the journal is not sound, a device failed, or clients are connected.
        """
        if not self._is_done(request):
            flag = Flag.NEVER
            if trigger is not Trigger.ABORT:  # the way out is open whatever the journal is like
                flag = (await self.journal.ledger()).flag
            if (
                trigger in _TRUSTING_THE_TARGET
            ):  # before its turn: nobody waits for a name that is slow to look up
                await self._around.opener.check_name(self.witness.devices.target)
            await self._in_turn(self._command(trigger, request, flag))
        return await self.confirm()

    async def _command(self, trigger: Trigger, request: HostCommand, flag: Flag) -> None:
        if self._is_done(request):
            return
        row = decide(replace(self._facts(), flag=flag), trigger)
        if trigger is Trigger.COMMIT and self.witness.authority is Side.SOURCE:
            refuse_unverified(
                self.name,
                verified_at=self.witness.verified_at,
                needs_verify=self.witness.needs_verify,
                demanded=request.verified,
            )
        if trigger is Trigger.CLEANUP:
            self.apparatus.left_behind.refuse_unfenced()  # or nobody would know of it any more
            self._refuse_clients(disconnect=request.disconnect)
        await self._executor.carry_out(self._decision(row, request.operation_id))

    async def _in_turn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have a command carried out when its turn comes: from then on to its end, whether or not anyone still waits."""
        task = self._around.tasks.create_task(self._refusal_of(work), name=f"decide {self.name}")
        refusal = await asyncio.shield(task)
        if refusal is not None:
            raise refusal

    async def _refusal_of(self, work: Coroutine[Any, Any, None]) -> Refusal | None:
        async with self._deciding:
            try:
                await work
            except Refusal as refusal:
                return refusal
        return None

    async def pause(self, request: HostCommand, *, paused: bool) -> DecidedReply:
        """Pause or resume the copier and the comparison; kept over a restart, until the attempt ends."""
        self.check_uuid(request.uuid)
        await self._keeper.remember(paused=paused)
        self.apparatus.pause_jobs(paused=paused)
        return await self.confirm()

    async def limit(self, request: HostCommand) -> DecidedReply:
        """Limit the copier's speed, or lift the limit; kept over a restart."""
        self.check_uuid(request.uuid)
        if request.bytes_per_s is not None and request.bytes_per_s < 1:
            message = f"A throttle of {request.bytes_per_s} bytes/s is not allowed; 1 or more, or none at all"
            raise Refusal(Code.BAD_REQUEST, message + ".")
        await self._keeper.remember(throttle_bytes_per_s=request.bytes_per_s)
        self.apparatus.throttle.limit(request.bytes_per_s)
        return await self.confirm()

    async def verify(self, request: HostCommand) -> DecidedReply:
        """Begin to compare both sides; answered when that has begun. One that is under way already is told of instead.

        Raises:
            Refusal: the sides are not in sync, or the target has just failed.
        """
        self.check_uuid(request.uuid)
        await self._in_turn(self._verify(request))
        verification = self.apparatus.verification
        if verification is None:
            raise InvariantError(f"a comparison of {self.name} has begun and is not there")
        return replace(
            self._decided(is_stored=self.reporter.is_settled),
            message="" if verification.id == request.operation_id else ATTACHED,
            verification=verification.view(),
        )

    async def _verify(self, request: HostCommand) -> None:
        if self._is_stopping:
            raise Refusal(Code.SHUTTING_DOWN, f"The host of {self.name} is stopping.")
        if not self._verifying.is_begun(request.operation_id):
            verification = self._verifying.begin(request.operation_id, self._facts())
            self.apparatus.start_verifying(verification, self.found_equal)

    async def vouch(self, request: HostCommand) -> DecidedReply:
        """Take the operator's word that the old connections to remote devices are gone."""
        self.check_uuid(request.uuid)
        await self._in_turn(self.vouching.believe(request))
        return await self.confirm()

    async def _note_released(self) -> None:
        async with self._deciding:
            await self.vouching.note()

    def check_uuid(self, uuid: str) -> None:
        """Refuse what was meant for another migration of the same name."""
        if uuid != self.witness.uuid:
            raise Refusal(Code.STALE, f"{self.name} has the UUID {self.witness.uuid} now, not {uuid}.")

    def _is_done(self, request: EnterRequest | HostCommand) -> bool:
        self.check_uuid(request.uuid)
        return request.operation_id == self.witness.operation_id

    def _refuse_clients(self, *, disconnect: bool) -> None:
        connections = self._around.exports.connections(self.name)
        if connections and not disconnect:
            peers = ", ".join(connection.peer for connection in connections)
            message = f"{self.name} has clients connected: {peers}. Disconnect them, or say disconnect"
            raise Refusal(Code.CLIENTS_CONNECTED, message + ".")

    async def confirm(self) -> DecidedReply:
        """What was decided last, and whether the journal holds it by now."""
        is_stored = await self.reporter.settled(self._around.limits.journal_wait_s)
        return self._decided(is_stored=is_stored)

    def _decided(self, *, is_stored: bool) -> DecidedReply:
        witness = self.witness
        return DecidedReply(
            state=witness.state,
            authority=witness.authority,
            attempt=witness.attempt,
            decision=witness.decision,
            journal=is_stored,
            message=""
            if is_stored
            else f"Not in the journal yet: {self.reporter.trouble or 'no answer so far'}",
            export_uri=None if witness.state is None else self._around.exports.uri(self.name),
            uuid=witness.uuid,
        )

    # ------------------------------------------------------------------ what the volume tells

    def target_failed(self, failure: Failure) -> None:
        """The volume has dropped the target: decide the way back to setup."""
        self._faults.note(failure)
        self._later(self._decide_event(Trigger.TARGET_FAULT, failure))

    def source_lost(self, failure: Failure) -> None:
        """The source failed while reads come from the target: decide to move the authority."""
        self._faults.note(failure)
        self._later(self._decide_event(Trigger.SOURCE_FAULT, failure))

    def source_failed(self, failure: Failure) -> None:
        """The source failed, and nothing waits for a decision about it."""
        self._faults.note(failure)
        if not self._are_faults_due:
            self._are_faults_due = True
            self._later(self._keep_noted_faults())

    def sides_differ(self, request: Request) -> None:
        """The source failed a cloned write: make both sides equal again before it is answered."""
        self._later(self.apparatus.make_equal(request))

    def copied(self, copier: Copier) -> None:
        """Every region is the same on both sides."""
        self._later(self._decide_copied(copier))

    def found_equal(self, verification: Verification) -> None:
        """A comparison is through, and nothing differs."""
        self._later(self._record_verified(verification))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        self._around.tasks.create_task(work, name=f"decide {self.name}")

    async def _decide_event(self, trigger: Trigger, failure: Failure) -> None:
        async with self._deciding:
            try:
                # The fault itself is what the decision is about: the guards look at those before it.
                row = decide(self.witness.facts, trigger)
                detail = f"{failure.operation}: {failure.cause}"
                await self._executor.carry_out(self._decision(row, self._next_operation_id(), detail=detail))
            except Refusal as refusal:
                log.info("nothing is decided: %s", refusal.message, extra=about(self.name))
                self._executor.give_up()
                await self._faults.keep()

    async def _decide_copied(self, copier: Copier) -> None:
        await self.journal.again()
        if self.journal.trouble or not await self._has_decided_copied(copier):
            await asyncio.sleep(WITNESS_RETRY_S)
            self.copied(copier)

    async def _has_decided_copied(self, copier: Copier) -> bool:
        async with self._deciding:
            if copier is not self.apparatus.copier or self.witness.state is not State.SYNCING:
                return True
            try:
                row = decide(self._facts(), Trigger.COPIED)
                await self._executor.carry_out(self._decision(row, self._next_operation_id()))
            except Refusal as refusal:
                log.warning("copied, but not in sync: %s", refusal.message, extra=about(self.name))
                return refusal.code not in _PASSING
            return True

    async def _record_verified(self, verification: Verification) -> None:
        async with self._deciding:
            await self._verifying.record(verification)

    async def _keep_noted_faults(self) -> None:
        async with self._deciding:
            self._are_faults_due = False
            await self._faults.keep()

    # ------------------------------------------------------------------ what a decision is made of

    def _facts(self) -> Facts:
        """What a command is decided on: what the witness holds, and the faults that are on their way into it."""
        return with_faults(self.witness.facts, self._faults.undecided)

    def _decision(self, row: Transition, operation_id: str, *, detail: str = "") -> Decision:
        return Decision(
            row=row,
            operation_id=operation_id,
            attempt=self.witness.attempt,
            detail=detail,
            flag_digest=self.witness.flag_digest,
            faults=self.witness.faults,
        )

    def _next_operation_id(self) -> str:
        return f"{self.witness.uuid}:decision:{self.witness.decision + 1}"
