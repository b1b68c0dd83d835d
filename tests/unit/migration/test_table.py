"""Every pair of state and trigger, with every combination of facts: allowed as the table lists it, else refused with words."""

import itertools
from collections.abc import Callable

import pytest

from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import CLONING_STATES, Flag, State, routing_of
from shared.migration.table import (
    COMMANDS,
    TRANSITIONS,
    Facts,
    Step,
    Transition,
    Trigger,
    allowed_commands,
    decide,
)

ALL_FACTS = [
    Facts(
        state=state,
        authority=authority,
        flag=flag,
        source_faults=source,
        source_flush_faults=flush,
        target_faults=target,
    )
    for state, authority, flag, (source, flush), target in itertools.product(
        [None, *State], Side, Flag, ((0, 0), (1, 0), (1, 1)), (0, 1)
    )
]

# (before, trigger): (after, what must hold). Written out a second time, on purpose, from what the product promises.
PROMISED: dict[tuple[str | None, str], tuple[str | None, Callable[[Facts], bool]]] = {
    (None, "setup"): ("setup", lambda f: True),
    ("setup", "sync"): ("syncing", lambda f: f.flag is Flag.SET),
    ("syncing", "copied"): ("source-selected", lambda f: not f.target_faults and not f.source_flush_faults),
    ("source-selected", "select-target"): ("target-selected", lambda f: not f.target_faults),
    ("target-selected", "select-source"): (
        "source-selected",
        lambda f: not f.source_faults and f.authority is Side.SOURCE,
    ),
    ("target-selected", "commit"): ("committed", lambda f: not f.target_faults),
    ("syncing", "target-fault"): ("setup", lambda f: f.authority is Side.SOURCE),
    ("source-selected", "target-fault"): ("setup", lambda f: f.authority is Side.SOURCE),
    ("target-selected", "target-fault"): ("setup", lambda f: f.authority is Side.SOURCE),
    ("syncing", "abort"): ("setup", lambda f: f.authority is Side.SOURCE),
    ("source-selected", "abort"): ("setup", lambda f: f.authority is Side.SOURCE),
    ("target-selected", "abort"): ("setup", lambda f: f.authority is Side.SOURCE),
    ("target-selected", "source-fault"): (
        "target-selected",
        lambda f: f.authority is Side.SOURCE and not f.target_faults,
    ),
    ("setup", "cleanup"): (None, lambda f: f.flag is not Flag.SET),
    ("committed", "cleanup"): (None, lambda f: f.flag is not Flag.SET),
}


@pytest.mark.parametrize("trigger", Trigger)
def test_every_pair_does_what_is_promised_and_nothing_else(trigger: Trigger) -> None:
    for facts in ALL_FACTS:
        promise = PROMISED.get((facts.state, trigger))
        if promise is not None and promise[1](facts):
            assert decide(facts, trigger).after == promise[0], facts
        else:
            with pytest.raises(Refusal) as refused:
                decide(facts, trigger)
            assert refused.value.code is Code.NOT_ALLOWED
            assert trigger in refused.value.message
            assert (facts.state or "before setup") in refused.value.message


def test_a_refusal_names_what_is_allowed() -> None:
    with pytest.raises(Refusal) as refused:
        decide(Facts(state=State.SOURCE_SELECTED), Trigger.COMMIT)
    assert refused.value.allowed == ("select-target", "abort")
    assert "select-target, abort" in refused.value.message


def test_what_is_called_allowed_is_allowed() -> None:
    for facts in ALL_FACTS:
        for trigger in COMMANDS:
            # `sync` sets the flag itself before it is decided.
            asked = (
                Facts(state=facts.state, authority=facts.authority, flag=Flag.SET)
                if trigger == "sync"
                else facts
            )
            try:
                decide(asked, trigger)
            except Refusal:
                assert trigger not in allowed_commands(facts), (facts, trigger)
            else:
                assert trigger in allowed_commands(facts), (facts, trigger)


def test_no_pair_stands_twice() -> None:
    pairs = [(row.before, row.trigger) for row in TRANSITIONS]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: f"{row.before}-{row.trigger}")
def test_the_witness_is_written_before_the_decision_is_acted_on(row: Transition) -> None:
    steps = row.steps
    witness = steps.index(Step.WRITE_WITNESS)
    for later in (
        Step.SWITCH_ROUTING,
        Step.RELEASE_WRITES,
        Step.START_COPYING,
        Step.REPORT_FAULTS,
        Step.REPORT_DECISION,
        Step.CLEAR_FLAG,
        Step.RELEASE_SOURCE,
        Step.RELEASE_TARGET,
        Step.FORGET_WITNESS,
    ):
        assert later not in steps or steps.index(later) > witness


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: f"{row.before}-{row.trigger}")
def test_the_flag_is_cleared_after_the_decision_and_its_faults_are_reported(row: Transition) -> None:
    steps = row.steps
    leaves_cloning = row.before in CLONING_STATES and row.after in {State.SETUP, State.COMMITTED}
    assert (Step.CLEAR_FLAG in steps) is leaves_cloning
    if leaves_cloning:
        assert (
            steps.index(Step.REPORT_FAULTS) < steps.index(Step.REPORT_DECISION) < steps.index(Step.CLEAR_FLAG)
        )


def test_the_authority_moves_only_after_a_target_flush_before_the_witness() -> None:
    moves = [
        row for row in TRANSITIONS if row.authority is Side.TARGET and row.before is State.TARGET_SELECTED
    ]
    assert {row.trigger for row in moves} == {Trigger.COMMIT, Trigger.SOURCE_FAULT}
    for row in moves:
        assert row.steps.index(Step.FLUSH_TARGET) < row.steps.index(Step.WRITE_WITNESS)


def test_a_copy_is_in_sync_only_after_a_flush_of_the_source() -> None:
    row = next(row for row in TRANSITIONS if row.trigger is Trigger.COPIED)
    assert row.steps.index(Step.FLUSH_SOURCE) < row.steps.index(Step.WRITE_WITNESS)


@pytest.mark.parametrize(
    ("state", "reads", "writes", "flushes"),
    [
        (State.SETUP, "source", {"source"}, {"source"}),
        (State.SYNCING, "source", {"source", "target"}, {"source"}),
        (State.SOURCE_SELECTED, "source", {"source", "target"}, {"source"}),
        (State.TARGET_SELECTED, "target", {"source", "target"}, {"source", "target"}),
        (State.COMMITTED, "target", {"target"}, {"target"}),
    ],
)
def test_routing_of_each_state(state: State, reads: str, writes: set[str], flushes: set[str]) -> None:
    routing = routing_of(state, Side.SOURCE if state is not State.COMMITTED else Side.TARGET)
    assert (str(routing.reads), set(routing.writes), set(routing.flushes)) == (reads, writes, flushes)


def test_a_source_that_lost_the_authority_gets_nothing_any_more() -> None:
    routing = routing_of(State.TARGET_SELECTED, Side.TARGET)
    assert (str(routing.reads), set(routing.writes), set(routing.flushes)) == (
        "target",
        {"target"},
        {"target"},
    )
