"""The transitions of a migration: one immutable table, and the pure functions that read it.

A pair of state and trigger that the table does not list is refused, with an error that names the state, the trigger and
what is allowed, and changes nothing. Each row says which guards must hold and which steps the host performs, in order; the
order is what keeps data safe, so it stands here, in one place, and the host's decision point only follows it.

The diagram in docs/ARCHITECTURE.md is generated from `TRANSITIONS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag, State


class Trigger(StrEnum):
    """What can move a migration: commands of the operator, and events at the host."""

    SETUP = "setup"
    SYNC = "sync"
    COPIED = "copied"
    SELECT_TARGET = "select-target"
    SELECT_SOURCE = "select-source"
    COMMIT = "commit"
    ABORT = "abort"
    CLEANUP = "cleanup"
    TARGET_FAULT = "target-fault"
    SOURCE_FAULT = "source-fault"


COMMANDS = frozenset(Trigger) - {Trigger.COPIED, Trigger.TARGET_FAULT, Trigger.SOURCE_FAULT}


class Step(StrEnum):
    """The steps of a transition at the host. One is complete before the next begins."""

    OPEN_DEVICES = "open-devices"  # opened, locked, checked
    FLUSH_TARGET = "flush-target"
    FLUSH_SOURCE = "flush-source"  # what was read from it and copied is what it holds: a cache that lost writes says so now
    HOLD_WRITES = "hold-writes"  # no new write is started, and those in flight are done
    DROP_TARGET = "drop-target"  # at once: no request is routed to it any more, no write is acknowledged
    WRITE_WITNESS = "write-witness"  # the decision is durable
    SWITCH_ROUTING = "switch-routing"  # the new state's routing holds for every request from here on
    RELEASE_WRITES = "release-writes"  # what was held goes on, what was unanswered is answered
    START_COPYING = "start-copying"
    REPORT_FAULTS = "report-faults"  # repeated until fault_recording has stored them
    REPORT_DECISION = "report-decision"  # repeated until the journal holds it
    CLEAR_FLAG = "clear-flag"
    RELEASE_TARGET = "release-target"  # closed and unlocked, once nothing is outstanding on it
    RELEASE_SOURCE = "release-source"
    OPEN_VOLUME = "open-volume"
    CLOSE_VOLUME = "close-volume"
    FORGET_WITNESS = "forget-witness"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a decision is made on: recorded facts of the current attempt."""

    state: State | None
    authority: Side = Side.SOURCE
    flag: Flag = Flag.NEVER
    source_faults: int = 0
    source_flush_faults: int = 0  # among the source's
    target_faults: int = 0


class Fault(Protocol):
    """What a decision looks at in a fault."""

    @property
    def side(self) -> Side:
        """Whose fault it is."""

    @property
    def operation(self) -> str:
        """What the device did not do."""


def with_faults(facts: Facts, faults: Sequence[Fault]) -> Facts:
    """These facts with these faults added to theirs."""
    of_source = [fault.operation for fault in faults if fault.side is Side.SOURCE]
    return replace(
        facts,
        source_faults=facts.source_faults + len(of_source),
        source_flush_faults=facts.source_flush_faults + of_source.count("flush"),
        target_faults=facts.target_faults + sum(fault.side is Side.TARGET for fault in faults),
    )


class Guard(StrEnum):
    """A condition of a row; see `_GUARDS` for what it demands and how a refusal words it."""

    FLAG_SET = "flag-set"
    FLAG_CLEAR = "flag-clear"
    NO_TARGET_FAULT = "no-target-fault"
    NO_SOURCE_FAULT = "no-source-fault"
    NO_SOURCE_FLUSH_FAULT = "no-source-flush-fault"
    AUTHORITY_IS_SOURCE = "authority-is-source"


_GUARDS: Mapping[Guard, tuple[Callable[[Facts], bool], str]] = MappingProxyType({
    Guard.FLAG_SET: (lambda facts: facts.flag is Flag.SET, "the error flag is not set yet"),
    Guard.FLAG_CLEAR: (lambda facts: facts.flag is not Flag.SET, "the error flag is still set"),
    Guard.NO_TARGET_FAULT: (lambda facts: facts.target_faults == 0, "a target fault is recorded in this attempt"),
    Guard.NO_SOURCE_FAULT: (lambda facts: facts.source_faults == 0, "a source fault is recorded in this attempt"),
    Guard.NO_SOURCE_FLUSH_FAULT: (
        lambda facts: facts.source_flush_faults == 0,
        "a flush of the source has failed in this attempt",
    ),
    Guard.AUTHORITY_IS_SOURCE: (
        lambda facts: facts.authority is Side.SOURCE,
        "the target alone holds every acknowledged write",
    ),
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One row of the table. `after` is None where the migration ends; `authority` is the side that holds it afterwards."""

    before: State | None
    trigger: Trigger
    after: State | None
    guards: tuple[Guard, ...] = ()
    steps: tuple[Step, ...]
    authority: Side = Side.SOURCE
    reason: str

    @property
    def begins_attempt(self) -> bool:
        """Whether the attempt is counted up: whenever `setup` is left for `syncing`."""
        return self.trigger is Trigger.SYNC


# The decision is durable before a write that the target misses is acknowledged, the faults are in the journal before the
# decision, and the flag is cleared last of all.
_LEAVE_TARGET = (
    Step.SWITCH_ROUTING,
    Step.RELEASE_WRITES,
    Step.REPORT_FAULTS,
    Step.REPORT_DECISION,
    Step.CLEAR_FLAG,
    Step.RELEASE_TARGET,
)
# A target that has failed leaves the routing before anything else happens, and there is no way back.
_FAIL_TARGET = (Step.DROP_TARGET, Step.WRITE_WITNESS, *_LEAVE_TARGET)
# A sound one is given up once that is decided: where the witness cannot be written, the command is refused and I/O goes on.
_GIVE_UP_TARGET = (Step.WRITE_WITNESS, Step.DROP_TARGET, *_LEAVE_TARGET)
# Reads change sides only between writes, which are held for it: with none in flight both sides hold the same bytes, so a read
# that follows another never sees older data. (`committed` reads from the side that `target-selected` read from: nothing is held.)
_SWITCH_READS = (
    Step.WRITE_WITNESS,
    Step.SWITCH_ROUTING,
    Step.RELEASE_WRITES,
    Step.REPORT_DECISION,
)


def _back_to_setup(before: State, trigger: Trigger, steps: tuple[Step, ...], reason: str) -> Transition:
    return Transition(
        before=before,
        trigger=trigger,
        after=State.SETUP,
        guards=(Guard.AUTHORITY_IS_SOURCE,),
        steps=steps,
        reason=reason,
    )


_FAULTED = "the target can no longer be trusted; the source holds everything"
_ABORTED = "the operator gives the attempt up; the source holds everything"

TRANSITIONS: tuple[Transition, ...] = (
    Transition(
        before=None,
        trigger=Trigger.SETUP,
        after=State.SETUP,
        steps=(Step.OPEN_DEVICES, Step.WRITE_WITNESS, Step.REPORT_DECISION, Step.OPEN_VOLUME),
        reason="both devices open, the target large enough, not the same device, neither in use",
    ),
    Transition(
        before=State.SETUP,
        trigger=Trigger.SYNC,
        after=State.SYNCING,
        guards=(Guard.FLAG_SET,),
        steps=(
            Step.OPEN_DEVICES,
            Step.HOLD_WRITES,
            Step.WRITE_WITNESS,
            Step.SWITCH_ROUTING,
            Step.RELEASE_WRITES,
            Step.START_COPYING,
            Step.REPORT_DECISION,
        ),
        reason="the flag is durable before the first cloned write",
    ),
    Transition(
        before=State.SYNCING,
        trigger=Trigger.COPIED,
        after=State.SOURCE_SELECTED,
        # Other source faults do no harm: what could not be written was copied again, and what cannot be read is never copied.
        guards=(Guard.NO_TARGET_FAULT, Guard.NO_SOURCE_FLUSH_FAULT),
        steps=(Step.FLUSH_SOURCE, Step.WRITE_WITNESS, Step.SWITCH_ROUTING, Step.REPORT_DECISION),
        reason="every region has been copied, of what a flush since has proved, and every write went to both sides",
    ),
    Transition(
        before=State.SOURCE_SELECTED,
        trigger=Trigger.SELECT_TARGET,
        after=State.TARGET_SELECTED,
        guards=(Guard.NO_TARGET_FAULT,),
        # Twice: the first one takes its time while writes go on, the second proves what was answered since. Until reads come from
        # the target an application's flush is of the source alone.
        steps=(Step.FLUSH_TARGET, Step.HOLD_WRITES, Step.FLUSH_TARGET, *_SWITCH_READS),
        reason="a target that cannot be flushed is not worth reading from",
    ),
    Transition(
        before=State.TARGET_SELECTED,
        trigger=Trigger.SELECT_SOURCE,
        after=State.SOURCE_SELECTED,
        guards=(Guard.AUTHORITY_IS_SOURCE, Guard.NO_SOURCE_FAULT),
        # Twice for the same reason. Whatever the source loses later is no write that an application has read from the target.
        steps=(Step.FLUSH_SOURCE, Step.HOLD_WRITES, Step.FLUSH_SOURCE, *_SWITCH_READS),
        reason="the source is in sync, has not failed, and tells of no write that its cache has lost",
    ),
    Transition(
        before=State.TARGET_SELECTED,
        trigger=Trigger.COMMIT,
        after=State.COMMITTED,
        guards=(Guard.NO_TARGET_FAULT,),
        authority=Side.TARGET,
        steps=(
            Step.FLUSH_TARGET,
            Step.WRITE_WITNESS,
            Step.SWITCH_ROUTING,
            Step.REPORT_FAULTS,
            Step.REPORT_DECISION,
            Step.CLEAR_FLAG,
            Step.RELEASE_SOURCE,
        ),
        reason="the target holds everything durably; the witness is the point of no return",
    ),
    _back_to_setup(State.SYNCING, Trigger.TARGET_FAULT, _FAIL_TARGET, _FAULTED),
    _back_to_setup(State.SOURCE_SELECTED, Trigger.TARGET_FAULT, _FAIL_TARGET, _FAULTED),
    _back_to_setup(State.TARGET_SELECTED, Trigger.TARGET_FAULT, _FAIL_TARGET, _FAULTED),
    _back_to_setup(State.SYNCING, Trigger.ABORT, _GIVE_UP_TARGET, _ABORTED),
    _back_to_setup(State.SOURCE_SELECTED, Trigger.ABORT, _GIVE_UP_TARGET, _ABORTED),
    _back_to_setup(State.TARGET_SELECTED, Trigger.ABORT, _GIVE_UP_TARGET, _ABORTED),
    Transition(
        before=State.TARGET_SELECTED,
        trigger=Trigger.SOURCE_FAULT,
        after=State.TARGET_SELECTED,
        guards=(Guard.AUTHORITY_IS_SOURCE, Guard.NO_TARGET_FAULT),
        authority=Side.TARGET,
        steps=(
            Step.FLUSH_TARGET,
            Step.WRITE_WITNESS,
            Step.SWITCH_ROUTING,
            Step.RELEASE_WRITES,
            Step.REPORT_FAULTS,
            Step.REPORT_DECISION,
        ),
        reason="the application is not failed for a source that it no longer needs: the authority moves first",
    ),
    Transition(
        before=State.SETUP,
        trigger=Trigger.CLEANUP,
        after=None,
        guards=(Guard.FLAG_CLEAR,),
        steps=(Step.CLOSE_VOLUME, Step.WRITE_WITNESS, Step.REPORT_DECISION, Step.FORGET_WITNESS),
        reason="nothing was cloned; the source stays as it is",
    ),
    Transition(
        before=State.COMMITTED,
        trigger=Trigger.CLEANUP,
        after=None,
        guards=(Guard.FLAG_CLEAR,),
        authority=Side.TARGET,
        steps=(Step.CLOSE_VOLUME, Step.WRITE_WITNESS, Step.REPORT_DECISION, Step.FORGET_WITNESS),
        reason="the target has taken over",
    ),
)

_BY_PAIR: Mapping[tuple[State | None, Trigger], Transition] = MappingProxyType({
    (row.before, row.trigger): row for row in TRANSITIONS
})  # fmt: skip


def allowed_commands(facts: Facts) -> tuple[Trigger, ...]:
    """The operator's commands that would be accepted now, in the table's order. `sync` sets the flag itself."""
    with_flag = {Guard.FLAG_SET}
    return tuple(
        row.trigger
        for row in TRANSITIONS
        if row.before is facts.state
        and row.trigger in COMMANDS
        and all(guard in with_flag or _GUARDS[guard][0](facts) for guard in row.guards)
    )


def decide(facts: Facts, trigger: Trigger) -> Transition:
    """The row that `trigger` takes from here.

    Raises:
        Refusal: (`not-allowed`) the table has no such row, or a guard of it does not hold.
    """
    row = _BY_PAIR.get((facts.state, trigger))
    if row is None:
        raise _refused(facts, trigger, "the state does not allow it")
    for guard in row.guards:
        holds, otherwise = _GUARDS[guard]
        if not holds(facts):
            raise _refused(facts, trigger, otherwise)
    return row


def _refused(facts: Facts, trigger: Trigger, because: str) -> Refusal:
    allowed = allowed_commands(facts)
    where = f"in state {facts.state}" if facts.state else "before setup"
    choices = f"allowed now: {', '.join(allowed)}" if allowed else "no command is allowed now"
    return Refusal(Code.NOT_ALLOWED, f"{trigger} is refused {where}: {because}; {choices}.", allowed)
