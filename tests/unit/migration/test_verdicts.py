"""Every combination that the journal can say has a verdict, and it is the one that is promised."""

import itertools

import pytest

from shared.migration.devices import Side
from shared.migration.states import CLONING_STATES, State
from shared.migration.verdicts import VERDICTS, Label, Remedy, VerdictFacts, judge

ALL = [
    VerdictFacts(state=state, authority=authority, flag_set=flag, target_fault=fault)
    for state, authority, flag, fault in itertools.product(State, Side, (False, True), (False, True))
]


def promised(facts: VerdictFacts) -> Label:
    """The verdicts in another form: first by authority, then by state."""
    if facts.authority is Side.TARGET:
        if facts.state is State.COMMITTED:
            return Label.DONE_FLAGGED if facts.flag_set else Label.DONE
        if facts.state is State.TARGET_SELECTED:
            return Label.ON_TARGET_FLAGGED if facts.flag_set else Label.ON_TARGET
        return Label.CONTRADICTION
    if facts.state is State.SETUP:
        return Label.IDLE_FLAGGED if facts.flag_set else Label.IDLE
    if facts.state in CLONING_STATES:
        if facts.flag_set:
            return Label.UNCLEAN
        return Label.FAULTED if facts.target_fault else Label.RESUME
    return Label.CONTRADICTION


@pytest.mark.parametrize("facts", ALL, ids=str)
def test_every_combination_has_the_promised_verdict(facts: VerdictFacts) -> None:
    assert judge(facts).label is promised(facts)


def test_every_row_is_reached() -> None:
    assert {judge(facts).label for facts in ALL} == {verdict.label for verdict in VERDICTS} == set(Label)


def test_a_set_flag_in_a_cloning_state_never_keeps_the_target() -> None:
    for facts in ALL:
        if facts.state in CLONING_STATES and facts.authority is Side.SOURCE and facts.flag_set:
            verdict = judge(facts)
            assert verdict.remedies == (Remedy.RECORD_UNCLEAN, Remedy.ERROR_TRANSITION, Remedy.CLEAR_FLAG)


def test_only_a_contradiction_is_refused() -> None:
    assert [verdict.label for verdict in VERDICTS if not verdict.admit] == [Label.CONTRADICTION]
