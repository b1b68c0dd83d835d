"""The executor: carries out a decision, its row's steps in their order, each complete before the next begins.

It chooses nothing, and has no turns: the decision point hands it one decision at a time. How the devices, the volume and the
copier are moved is the apparatus's business.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.write_cloning.apparatus import Apparatus
from services.write_cloning.copier import Copier
from services.write_cloning.faults import Faults
from services.write_cloning.keeper import Keeper, unwritten
from services.write_cloning.map_decisions import MapDecisions
from services.write_cloning.reporter import Reporter, origin_of
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.witness import Witness
from shared.logs.about import about
from shared.messages.recording import DecisionRequest, FaultReport
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import CLONING_STATES, IN_SYNC_STATES, State
from shared.migration.table import Step, Transition, Trigger

log = logging.getLogger(__name__)


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


class Executor:
    """Carries out the decisions of one migration."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        reporter: Reporter,
        faults: Faults,
        apparatus: Apparatus,
        map_decisions: MapDecisions,
        copied: Callable[[Copier], None],
        around: Surroundings,
    ) -> None:
        """`copied` is called when a copier has made every region the same on both sides."""
        self._keeper = keeper
        self._reporter = reporter
        self._faults = faults
        self._apparatus = apparatus
        self._map_decisions = map_decisions
        self._copied = copied
        self._around = around

    @property
    def _witness(self) -> Witness:
        return self._keeper.witness

    @property
    def has_lost_target(self) -> bool:
        """Whether the volume has dropped the target, and the decision about it is still to come."""
        return self._apparatus.volume.failover.has_dropped_target and self._witness.state in CLONING_STATES

    async def carry_out(self, decision: Decision) -> None:
        """Perform every step.

        Raises:
            Refusal: a step before the witness could not be done, or the witness could not be written; nothing was decided.
        """
        row = decision.row
        if row.after not in IN_SYNC_STATES or row.authority is Side.TARGET:
            await self._apparatus.stop_verifying(f"it was ended by {row.trigger}")
        try:
            for step in decision.row.steps:
                await self._around.hook(decision.row, step)
                await self._perform(step, decision)
        except Refusal:
            self._apparatus.volume.release()  # what an earlier step has held
            raise

    def give_up(self) -> None:
        """Answer what was withheld for a decision that is not to be: made already, or impossible.

        Where the target has failed meanwhile, its own event follows, and answers.
        """
        if not self.has_lost_target:
            self._apparatus.volume.failover.keep_authority()
            self._apparatus.release_writes()

    def start_copying(self) -> None:
        """Copy every region that is due, as paused as the witness says."""
        self._apparatus.start_copying(paused=self._witness.paused, copied=self._copied)

    def open_volume(self) -> None:
        """Take application I/O, and offer the volume to clients."""
        self._apparatus.volume.open()
        self._around.exports.add(self._witness.migration, self._apparatus.volume)

    # ------------------------------------------------------------------ steps

    async def _perform(self, step: Step, decision: Decision) -> None:  # noqa: C901, PLR0912 - one case for each step
        apparatus = self._apparatus
        witness = self._witness
        match step:
            case Step.OPEN_DEVICES:
                await apparatus.open_target()
            case Step.FLUSH_TARGET:
                await apparatus.flush_target()
            case Step.FLUSH_SOURCE:
                await apparatus.flush_source()
            case Step.HOLD_WRITES:
                await apparatus.hold_writes()
            case Step.DROP_TARGET:
                apparatus.volume.failover.drop(Side.TARGET, withhold=True)
                await apparatus.stop_copying()
            case Step.WRITE_WITNESS:
                await self._write_decision(decision)
            case Step.SWITCH_ROUTING:
                apparatus.switch_routing(witness.state or State.SETUP, witness.authority)
                apparatus.volume.failover.end_move(moved=witness.authority is Side.TARGET)
            case Step.RELEASE_WRITES:
                self._release_writes()
            case Step.START_COPYING:
                self.start_copying()
            case Step.REPORT_FAULTS:
                self._faults.report()
            case Step.REPORT_DECISION:
                self._faults.report()  # a decision may take faults along that it is not about
                self._reporter.want_decision(self._report_of(decision))
            case Step.CLEAR_FLAG:
                self._reporter.want_clear()
            case Step.RELEASE_TARGET:
                await apparatus.release_target()
            case Step.RELEASE_SOURCE:
                await apparatus.release_source()
            case Step.OPEN_VOLUME:
                self.open_volume()
            case Step.CLOSE_VOLUME:
                await self._close_volume()
            case Step.FORGET_WITNESS:
                pass  # the host does, once the journal holds the tombstone

    async def _close_volume(self) -> None:
        await self._around.exports.remove(self._witness.migration)
        await self._apparatus.volume.close()
        try:
            self._apparatus.left_behind.refuse_unfenced()  # what was still under way may just have been lost
        except Refusal:
            self.open_volume()
            raise

    def _release_writes(self) -> None:
        if self.has_lost_target:
            self._apparatus.volume.release()  # what it misses is answered by the decision about that, which follows
        else:
            self._apparatus.release_writes()

    def _report_of(self, decision: Decision) -> DecisionRequest:
        witness = self._witness
        return DecisionRequest(
            origin=origin_of(witness),
            state=witness.state,
            authority=witness.authority,
            trigger=witness.trigger,
            detail=decision.detail,
            devices=witness.devices if decision.row.before is None else None,
        )

    # ------------------------------------------------------------------ the witness

    async def _write_decision(self, decision: Decision) -> None:
        row = decision.row
        if row.after is not State.SETUP and self.has_lost_target:
            message = f"The target of {self._witness.migration} failed meanwhile; back to setup."
            raise Refusal(Code.DEVICE_FAILED, message)
        if row.trigger is Trigger.SELECT_SOURCE and self._apparatus.volume.failover.withheld:
            message = f"The source of {self._witness.migration} failed meanwhile; reads stay where they are."
            raise Refusal(Code.DEVICE_FAILED, message)
        faults = self._faults.undecided
        changes: dict[str, Any] = {
            "run": self._around.run,
            "state": row.after,
            "authority": row.authority,
            "attempt": decision.attempt,
            "decision": self._witness.decision + 1,
            "operation_id": decision.operation_id,
            "trigger": row.trigger.value,
            "detail": decision.detail,
            "flag_digest": decision.flag_digest,
            "faults": (*decision.faults, *faults),
            "unfenced": self._apparatus.left_behind.unfenced(
                row.after or State.SETUP, row.authority, before=self._witness.unfenced
            ),
        }
        if row.after in {State.SETUP, State.SYNCING}:
            changes |= {"verified_at": None, "needs_verify": False}  # they are of the attempt that has ended
        if row.after is State.SETUP:
            changes["paused"] = False  # it was for what has ended: the next attempt would stand still
        changes |= await self._map_decisions.prepare(
            row, attempt=decision.attempt, flag_digest=decision.flag_digest
        )
        if decision.tail_digest:
            changes["tail_digest"] = decision.tail_digest
        if row.trigger is Trigger.TARGET_FAULT:
            # It has happened, whether or not that can be written down now.
            await self._keeper.insist(**changes)
        else:
            await self._try(row, changes)
        self._faults.taken_along(faults)
        log.info(
            "decided: %s → %s by %s, decision %d%s",
            row.before or "(none)",
            row.after or "(removed)",
            row.trigger,
            self._witness.decision,
            f" ({decision.detail})" if decision.detail else "",
            extra=about(self._witness.migration, decision.attempt),
        )
        await self._map_decisions.follow(row)

    async def _try(self, row: Transition, changes: dict[str, Any]) -> None:
        if row.authority is Side.TARGET and self._witness.authority is Side.SOURCE:
            if self._apparatus.volume.failover.is_repairing:
                message = f"The source of {self._witness.migration} has failed a write, and both sides are not the same yet"
                raise Refusal(Code.BUSY, f"{message}; nothing has changed.")
            self._apparatus.volume.failover.begin_move()  # until the routing follows
        try:
            await self._keeper.amend(**changes)
        except OSError as error:
            await self._undo(row)
            raise unwritten(self._witness, error) from error

    async def _undo(self, row: Transition) -> None:
        """Be as before a decision that the witness did not take."""
        volume = self._apparatus.volume
        await self._map_decisions.undo(row)
        volume.failover.end_move(moved=False)
        volume.release()
        if row.trigger is Trigger.CLEANUP:
            self.open_volume()
        try:
            await self._keeper.amend()
        except OSError as error:
            # Harmless: whatever is decided next overwrites it, and until then both sides get every write.
            log.warning(
                "a decision that was not made may be on disk: %s", error, extra=about(self._witness.migration)
            )
