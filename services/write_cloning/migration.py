"""The decision point of one migration: commands and device errors meet here, one at a time, so no two decisions race.

A decision follows its row of the state table, step by step: it is in the witness before it is acted on, and the reporter
repeats it until the journal holds it. Nothing here decides what is allowed; the table does. How a step is done is the
apparatus's business.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from services.write_cloning.apparatus import Apparatus
from services.write_cloning.copier import Copier
from services.write_cloning.devices.interface import Device
from services.write_cloning.keeper import Keeper
from services.write_cloning.reporter import Reporter, origin_of, sound_ledger
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.volume.failures import Failure
from services.write_cloning.volume.requests import Request
from services.write_cloning.witness import Witness
from shared.messages.host import DecidedReply, EnterRequest, HostCommand
from shared.messages.recording import DecisionRequest, FaultReport
from shared.migration.devices import Side
from shared.migration.ledger import Ledger
from shared.migration.refusals import Code, InvariantError, Refusal
from shared.migration.states import CLONING_STATES, Flag, State
from shared.migration.table import Facts, Step, Transition, Trigger, decide

log = logging.getLogger(__name__)

FAULTS_PER_SIDE_MAX = (
    32  # of one attempt; what a device fails beyond that adds nothing, and is not even logged
)
WITNESS_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One row of the table about to be carried out."""

    row: Transition
    operation_id: str
    attempt: int
    detail: str = ""
    flag_digest: str
    tail_digest: str = ""  # of a journal that was read for it; otherwise the witness's stands
    faults: tuple[FaultReport, ...] = ()  # of the attempt, once the decision holds


class Migration:
    """One migration on this host."""

    def __init__(self, *, witness: Witness, source: Device, target: Device, around: Surroundings) -> None:
        """Take over two devices and a witness that is on disk. The volume stays closed until `begin`."""
        self._around = around
        self._keeper = Keeper(witness, around.witnesses)
        self._deciding = asyncio.Lock()
        self._undecided: list[FaultReport] = []  # faults that are not in the witness yet
        self._newly_kept: tuple[FaultReport, ...] = ()  # by the decision that is being carried out
        self._fault_number = 0
        self.reporter = Reporter(self._keeper, around)
        self.apparatus = Apparatus(
            name=witness.migration,
            devices=witness.devices,
            source=source,
            target=target,
            listener=self,
            around=around,
        )
        self.apparatus.throttle.limit(witness.throttle_bytes_per_s)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def witness(self) -> Witness:
        """What was decided last, as it is on disk."""
        return self._keeper.witness

    @property
    def name(self) -> str:
        """The migration's name."""
        return self.witness.migration

    @property
    def unstored_faults(self) -> tuple[FaultReport, ...]:
        """Faults that the journal does not hold yet."""
        return (*self._undecided, *self._newly_kept, *self.reporter.unstored_faults)

    # ------------------------------------------------------------------ life

    def begin(self) -> None:
        """Open the volume in the state that the witness holds. In `syncing`, copying begins anew."""
        witness = self.witness
        if witness.state is None:
            raise InvariantError(f"{self.name} was removed and is to begin")
        for endless in (self.reporter.run(), self.apparatus.watch()):
            self._tasks.append(self._around.tasks.create_task(endless, name=f"look after {self.name}"))
        self.apparatus.switch_routing(witness.state, witness.authority)
        self._open_volume()
        if witness.state is State.SYNCING:
            self._start_copying()

    async def stop(self) -> bool:
        """Refuse application I/O, finish what is under way, flush, and have the flag cleared.

        Returns whether the stop was clean: the authority was flushed and the journal holds everything. Otherwise the flag
        stays set, which costs a resync and nothing else.
        """
        await self.apparatus.volume.close()
        async with self._deciding:
            await self.apparatus.stop_copying()
            failure = await self.apparatus.flush_all()
            if self._has_lost_target():  # its own event comes too late: the flag is to be cleared after this
                row = decide(self.witness.facts, Trigger.TARGET_FAULT)
                await self._carry_out(self._decision(row, self._next_operation_id(), detail="at the stop"))
            await self._keep_faults()
            if failure is not None:
                log.error("%s: the authority could not be flushed: %s", self.name, failure.cause)
                return False
            if self.witness.state in CLONING_STATES:
                self.reporter.want_clear()
        return await self.reporter.settled(self._around.limits.journal_wait_s)

    async def release(self) -> None:
        """End the tasks and close the devices; the volume is closed."""
        for task in self._tasks:
            task.cancel()
        await self.apparatus.source.close()
        await self.apparatus.target.close()

    # ------------------------------------------------------------------ commands

    async def enter(self, request: EnterRequest) -> DecidedReply:
        """Enter write cloning under the flag that was set for it.

        Raises:
            Refusal: the flag is not the last record of its kind or is spent, the attempt is not the next one, the table or
                the target does not allow it. Nothing was cloned.
        """
        if not self._is_done(request):
            ledger = await sound_ledger(
                self._around, self.witness
            )  # before its turn: decisions never wait for NATS
            await self._in_turn(self._enter(request, ledger))
        return await self.confirm()

    async def _enter(self, request: EnterRequest, ledger: Ledger) -> None:
        if self._is_done(request):
            return
        await self._keep_faults()  # those of the last attempt are no business of the next
        if (
            not self.reporter.is_settled
        ):  # a clear that is still to come would take this flag for the one it is about
            raise Refusal(Code.BUSY, f"The journal does not hold all that was decided of {self.name} yet.")
        flag = ledger.flag_entry
        if flag is None or ledger.flag is not Flag.SET or flag.digest != request.flag_digest:
            raise Refusal(Code.STALE, f"The flag named for {self.name} is not the last one in the journal.")
        if flag.digest == self.witness.spent_flag_digest:
            raise Refusal(Code.STALE, f"The flag named for {self.name} was to be cleared; set a new one.")
        facts = replace(self.witness.facts, flag=Flag.SET, source_faults=0, target_faults=0)
        row = decide(facts, Trigger.SYNC)
        if request.attempt != self.witness.attempt + 1:
            raise Refusal(Code.STALE, f"Attempt {self.witness.attempt + 1} of {self.name} is next.")
        await self._carry_out(
            Decision(
                row=row,
                operation_id=request.operation_id,
                attempt=request.attempt,
                flag_digest=flag.digest,
                tail_digest=ledger.tail.digest,
            )
        )

    async def command(self, trigger: Trigger, request: HostCommand) -> DecidedReply:
        """Carry out a command of the table.

        Raises:
            Refusal: the table does not allow it, the journal is not sound, a device failed, or clients are connected.
        """
        if not self._is_done(request):
            flag = Flag.NEVER
            if trigger is not Trigger.ABORT:  # the way out is open whatever the journal is like
                flag = (await sound_ledger(self._around, self.witness)).flag
            await self._in_turn(self._command(trigger, request, flag))
        return await self.confirm()

    async def _command(self, trigger: Trigger, request: HostCommand, flag: Flag) -> None:
        if self._is_done(request):
            return
        row = decide(replace(self._facts(), flag=flag), trigger)
        if trigger is Trigger.CLEANUP:
            self._refuse_clients(disconnect=request.disconnect)
        await self._carry_out(self._decision(row, request.operation_id))

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
        """Pause or resume the copier; kept over a restart."""
        self.check_uuid(request.uuid)
        await self._remember(paused=paused)
        if (copier := self.apparatus.copier) is not None:
            if paused:
                copier.pause()
            else:
                copier.resume()
        return await self.confirm()

    async def limit(self, request: HostCommand) -> DecidedReply:
        """Limit the copier's speed, or lift the limit; kept over a restart."""
        self.check_uuid(request.uuid)
        if request.bytes_per_s is not None and request.bytes_per_s < 1:
            message = f"A throttle of {request.bytes_per_s} bytes/s is not allowed; 1 or more, or none at all"
            raise Refusal(Code.BAD_REQUEST, message + ".")
        await self._remember(throttle_bytes_per_s=request.bytes_per_s)
        self.apparatus.throttle.limit(request.bytes_per_s)
        return await self.confirm()

    async def _remember(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of a Witness
        try:
            await self._keeper.amend(**changes)
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: OSError) -> Refusal:
        message = f"The witness of {self.name} could not be written: {error.strerror or error}"
        return Refusal(Code.INTERNAL, f"{message}; nothing has changed.")

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
        )

    # ------------------------------------------------------------------ what the volume tells

    def target_failed(self, failure: Failure) -> None:
        """The volume has dropped the target: decide the way back to setup."""
        self._take_note(failure)
        self._later(self._decide_event(Trigger.TARGET_FAULT, failure))

    def source_lost(self, failure: Failure) -> None:
        """The source failed while reads come from the target: decide to move the authority."""
        self._take_note(failure)
        self._later(self._decide_event(Trigger.SOURCE_FAULT, failure))

    def source_failed(self, failure: Failure) -> None:
        """The source failed, and nothing waits for a decision about it."""
        self._take_note(failure)
        self._later(self._keep_noted_faults())

    def sides_differ(self, request: Request) -> None:
        """The source failed a cloned write: make both sides equal again before it is answered."""
        self._later(self.apparatus.make_equal(request))

    def copied(self, copier: Copier) -> None:
        """Every region is the same on both sides."""
        self._later(self._decide_copied(copier))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        self._around.tasks.create_task(work, name=f"decide {self.name}")

    def _take_note(self, failure: Failure) -> None:
        if self._fault_count(failure.side) >= FAULTS_PER_SIDE_MAX:
            return
        log.error("%s: the %s failed: %s %s", self.name, failure.side, failure.operation, failure.cause)
        self._fault_number += 1
        witness = self.witness
        self._undecided.append(
            FaultReport(
                operation_id=f"{witness.uuid}:fault:{self._around.run}:{self._fault_number}",
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

    async def _decide_event(self, trigger: Trigger, failure: Failure) -> None:
        async with self._deciding:
            try:
                # The fault itself is what the decision is about: the guards look at those before it.
                row = decide(self.witness.facts, trigger)
                detail = f"{failure.operation}: {failure.cause}"
                await self._carry_out(self._decision(row, self._next_operation_id(), detail=detail))
            except Refusal as refusal:
                log.info("%s: %s", self.name, refusal.message)
                self._give_up_event()
                await self._keep_faults()

    def _give_up_event(self) -> None:
        """Answer what was withheld for a decision that is not to be: made already, or impossible.

        Where the target has failed meanwhile, its own event follows, and answers.
        """
        if not self._has_lost_target():
            self.apparatus.volume.keep_authority()
            self.apparatus.release_writes()

    async def _decide_copied(self, copier: Copier) -> None:
        if not await self._has_decided_copied(copier):
            await asyncio.sleep(WITNESS_RETRY_S)
            self.copied(copier)

    async def _has_decided_copied(self, copier: Copier) -> bool:
        async with self._deciding:
            if copier is not self.apparatus.copier or self.witness.state is not State.SYNCING:
                return True
            try:
                row = decide(self._facts(), Trigger.COPIED)
                await self._carry_out(self._decision(row, self._next_operation_id()))
            except Refusal as refusal:
                log.warning("%s: copied, but not in sync: %s", self.name, refusal.message)
                return refusal.code is not Code.INTERNAL  # the witness may become writable again
            return True

    async def _keep_noted_faults(self) -> None:
        async with self._deciding:
            await self._keep_faults()

    async def _keep_faults(self) -> None:
        """Put faults that belong to no decision into the witness, and have them recorded."""
        faults = tuple(self._undecided)
        if faults:
            await self._insist(faults=(*self.witness.faults, *faults))
            del self._undecided[: len(faults)]  # more may have come
            self.reporter.want_faults(*faults)

    def _facts(self) -> Facts:
        """What a command is decided on: what the witness holds, and the faults that are on their way into it."""
        return replace(
            self.witness.facts,
            source_faults=self._fault_count(Side.SOURCE),
            target_faults=self._fault_count(Side.TARGET),
        )

    def _fault_count(self, side: Side) -> int:
        return self.witness.fault_count(side) + sum(fault.side is side for fault in self._undecided)

    # ------------------------------------------------------------------ carrying out

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

    async def _carry_out(self, decision: Decision) -> None:
        for step in decision.row.steps:
            await self._around.hook(decision.row, step)
            await self._perform(step, decision)

    async def _perform(self, step: Step, decision: Decision) -> None:  # noqa: C901, PLR0912 - one case for each step
        apparatus = self.apparatus
        witness = self.witness
        match step:
            case Step.OPEN_DEVICES:
                await apparatus.open_target()
            case Step.FLUSH_TARGET:
                await apparatus.flush_target()
            case Step.HOLD_WRITES:
                await apparatus.hold_writes()
            case Step.DROP_TARGET:
                apparatus.volume.drop(Side.TARGET, withhold=True)
                await apparatus.stop_copying()
            case Step.WRITE_WITNESS:
                await self._write_decision(decision)
            case Step.SWITCH_ROUTING:
                apparatus.switch_routing(witness.state or State.SETUP, witness.authority)
                apparatus.volume.end_move(moved=witness.authority is Side.TARGET)
            case Step.RELEASE_WRITES:
                self._release_writes()
            case Step.START_COPYING:
                self._start_copying()
            case Step.REPORT_FAULTS:
                self._report_faults()
            case Step.REPORT_DECISION:
                self._report_faults()  # a decision may take faults along that it is not about
                self.reporter.want_decision(self._report_of(decision))
            case Step.CLEAR_FLAG:
                self.reporter.want_clear()
            case Step.RELEASE_TARGET:
                await apparatus.release_target()
            case Step.RELEASE_SOURCE:
                await apparatus.release_source()
            case Step.OPEN_VOLUME:
                self._open_volume()
            case Step.CLOSE_VOLUME:
                await self._around.exports.remove(self.name)
                await apparatus.volume.close()
            case Step.FORGET_WITNESS:
                pass  # the host does, once the journal holds the tombstone

    def _release_writes(self) -> None:
        if self._has_lost_target():
            self.apparatus.volume.release()  # what it misses is answered by the decision about that, which follows
        else:
            self.apparatus.release_writes()

    def _report_faults(self) -> None:
        faults, self._newly_kept = self._newly_kept, ()
        if faults:
            self.reporter.want_faults(*faults)

    def _start_copying(self) -> None:
        self.apparatus.start_copying(paused=self.witness.paused, copied=self.copied)

    def _open_volume(self) -> None:
        self.apparatus.volume.open()
        self._around.exports.add(self.name, self.apparatus.volume)

    async def _write_decision(self, decision: Decision) -> None:
        row = decision.row
        if row.after is not State.SETUP and self._has_lost_target():
            self.apparatus.volume.release()
            raise Refusal(Code.DEVICE_FAILED, f"The target of {self.name} failed meanwhile; back to setup.")
        faults = tuple(self._undecided)
        changes: dict[str, Any] = {
            "run": self._around.run,
            "state": row.after,
            "authority": row.authority,
            "attempt": decision.attempt,
            "decision": self.witness.decision + 1,
            "operation_id": decision.operation_id,
            "trigger": row.trigger.value,
            "detail": decision.detail,
            "flag_digest": decision.flag_digest,
            "faults": (*decision.faults, *faults),
        }
        if decision.tail_digest:
            changes["tail_digest"] = decision.tail_digest
        if row.after is State.SETUP and row.before is not None:
            await self._insist(**changes)
        else:
            await self._try(row, changes)
        self._newly_kept = faults
        del self._undecided[: len(faults)]  # more may have come

    async def _try(self, row: Transition, changes: dict[str, Any]) -> None:
        if row.authority is Side.TARGET and self.witness.authority is Side.SOURCE:
            self.apparatus.volume.begin_move()  # until the routing follows
        try:
            await self._keeper.amend(**changes)
        except OSError as error:
            await self._undo(row)
            raise self._unwritten(error) from error

    async def _undo(self, row: Transition) -> None:
        """Be as before a decision that the witness did not take."""
        volume = self.apparatus.volume
        volume.end_move(moved=False)
        volume.release()
        if row.trigger is Trigger.CLEANUP:
            self._open_volume()
        try:
            await self._keeper.amend()
        except OSError as error:
            # Harmless: whatever is decided next overwrites it, and until then both sides get every write.
            log.warning("%s: a decision that was not made may be on disk: %s", self.name, error)

    async def _insist(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of a Witness
        """Write the witness, however long it takes: until it is durable, what the target misses is not answered."""
        while True:
            try:
                await self._keeper.amend(**changes)
            except OSError as error:
                log.critical("%s: the witness cannot be written, I/O waits for it: %s", self.name, error)
                await asyncio.sleep(WITNESS_RETRY_S)
            else:
                return

    def _has_lost_target(self) -> bool:
        """Whether the volume has dropped the target, and the decision about it is still to come."""
        return self.apparatus.volume.has_dropped_target and self.witness.state in CLONING_STATES

    def _report_of(self, decision: Decision) -> DecisionRequest:
        return DecisionRequest(
            origin=origin_of(self.witness),
            state=self.witness.state,
            authority=self.witness.authority,
            trigger=self.witness.trigger,
            detail=decision.detail,
            devices=self.witness.devices if decision.row.before is None else None,
        )
