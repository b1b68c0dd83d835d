"""What a migration can still become, told from the state table."""

import pytest

from services.console.reachability import reachable, why_out_of_reach
from shared.migration.devices import Side
from shared.migration.states import State
from shared.migration.table import Facts

S = State


@pytest.mark.parametrize(
    ("facts", "states"),
    [
        (Facts(state=S.SETUP), set(S)),
        (Facts(state=S.SYNCING), set(S)),
        (Facts(state=S.SYNCING, source_faults=1), set(S)),
        (Facts(state=S.SYNCING, source_faults=1, source_flush_faults=1), {S.SYNCING, S.SETUP}),
        (Facts(state=S.SYNCING, target_faults=1), {S.SYNCING, S.SETUP}),
        (Facts(state=S.SOURCE_SELECTED), {S.SOURCE_SELECTED, S.TARGET_SELECTED, S.COMMITTED, S.SETUP}),
        (
            Facts(state=S.SOURCE_SELECTED, source_faults=1),
            {S.SOURCE_SELECTED, S.TARGET_SELECTED, S.COMMITTED, S.SETUP},
        ),
        (Facts(state=S.SOURCE_SELECTED, target_faults=1), {S.SOURCE_SELECTED, S.SETUP}),
        (Facts(state=S.TARGET_SELECTED), {S.TARGET_SELECTED, S.SOURCE_SELECTED, S.COMMITTED, S.SETUP}),
        (
            Facts(state=S.TARGET_SELECTED, authority=Side.TARGET, source_faults=1),
            {S.TARGET_SELECTED, S.COMMITTED},
        ),
        (Facts(state=S.COMMITTED, authority=Side.TARGET), {S.COMMITTED}),
    ],
)
def test_reachable_states_follow_from_the_table(facts: Facts, states: set[State]) -> None:
    assert reachable(facts) == states


def test_no_way_leads_through_setup() -> None:
    """From `target-selected`, `syncing` could come only by abort and another sync, that is in another attempt."""
    assert S.SYNCING not in reachable(Facts(state=S.TARGET_SELECTED))


@pytest.mark.parametrize("state", State)
def test_a_state_that_is_there_is_not_out_of_reach(state: State) -> None:
    facts = Facts(state=state, target_faults=1)
    assert why_out_of_reach(facts, state, attempt=1, attempt_ended=True) is None


def test_a_fault_that_led_back_to_setup_is_named() -> None:
    why = why_out_of_reach(Facts(state=S.SETUP, target_faults=1), S.SOURCE_SELECTED, attempt=3)
    assert why is not None
    assert "target fault ended attempt 3" in why


def test_an_attempt_that_ended_while_waiting_does_not_come_back() -> None:
    facts = Facts(state=S.SETUP)
    assert why_out_of_reach(facts, S.SYNCING, attempt=1) is None
    why = why_out_of_reach(facts, S.SYNCING, attempt=1, attempt_ended=True)
    assert why is not None
    assert "attempt 1 has ended" in why


def test_a_commit_leaves_no_way_back() -> None:
    why = why_out_of_reach(Facts(state=S.COMMITTED, authority=Side.TARGET), S.SETUP, attempt=1)
    assert why == "from committed no way leads there"


def test_a_source_that_cannot_be_read_everywhere_is_in_the_way_of_what_follows_the_copy() -> None:
    facts = Facts(state=S.SYNCING, source_faults=1)
    assert why_out_of_reach(facts, S.SETUP, attempt=1, unreadable_regions=1) is None
    why = why_out_of_reach(facts, S.COMMITTED, attempt=1, unreadable_regions=1)
    assert why is not None
    assert "cannot be read" in why


def test_a_fault_in_the_way_is_named() -> None:
    facts = Facts(state=S.SYNCING, source_faults=1, source_flush_faults=1)
    why = why_out_of_reach(facts, S.SOURCE_SELECTED, attempt=1)
    assert why == "from syncing with a source fault in this attempt no way leads there"
