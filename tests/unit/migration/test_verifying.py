"""Where `verify` is allowed, and when `commit` wants one: every combination."""

import itertools

import pytest

from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Facts, allowed_commands
from shared.migration.verifying import refuse_unverified, require_verifiable

_IN_SYNC = {State.SOURCE_SELECTED, State.TARGET_SELECTED}


@pytest.mark.parametrize(
    ("state", "authority", "source_faults", "target_faults"),
    [*itertools.product(State, Side, (0, 1), (0, 1))],
)
def test_verify_is_for_two_sides_in_sync_and_says_otherwise_what_is_allowed(
    state: State, authority: Side, source_faults: int, target_faults: int
) -> None:
    facts = Facts(state=state, authority=authority, source_faults=source_faults, target_faults=target_faults)
    if state in _IN_SYNC and authority is Side.SOURCE and not target_faults:
        require_verifiable(facts)
        return
    with pytest.raises(Refusal) as refused:
        require_verifiable(facts)
    assert refused.value.code is Code.NOT_ALLOWED
    assert refused.value.allowed == allowed_commands(facts)
    assert str(state) in refused.value.message
    assert "source-selected and target-selected" in refused.value.message


@pytest.mark.parametrize(
    ("verified_at", "needs_verify", "demanded"),
    [*itertools.product((None, "2026-01-31T12:00:00Z"), (False, True), (None, False, True))],
)
def test_commit_wants_a_verify_after_a_partial_resync_unless_told_otherwise(
    verified_at: str | None, needs_verify: bool, demanded: bool | None
) -> None:
    wanted = demanded if demanded is not None else needs_verify
    if verified_at is not None or not wanted:
        refuse_unverified("vol1", verified_at=verified_at, needs_verify=needs_verify, demanded=demanded)
        return
    with pytest.raises(Refusal) as refused:
        refuse_unverified("vol1", verified_at=verified_at, needs_verify=needs_verify, demanded=demanded)
    assert (refused.value.code, refused.value.allowed) == (Code.NOT_VERIFIED, ("verify",))
    assert ("copied only what could differ" in refused.value.message) is (demanded is None)
