"""A command that the state does not allow is refused, names the state and what is allowed, and changes nothing."""

import pytest

from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.unchanged import nothing_changes
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import System

EVERY = {"sync", "select-target", "select-source", "commit", "abort", "cleanup"}
ALLOWED = {  # from the table of the design, not from the code
    "setup": {"sync", "cleanup"},
    "syncing": {"abort"},
    "source-selected": {"select-target", "abort"},
    "target-selected": {"select-source", "commit", "abort"},
    "committed": {"cleanup"},
}


@pytest.mark.parametrize("state", ALLOWED)
def test_command_that_the_state_does_not_allow_is_refused(system: System, pair: Pair, state: str) -> None:
    system.set_up("vol1", pair.source, pair.target)
    bring_to(system, "vol1", state)
    assert set(system.client.query("vol1")["allowed"]) == ALLOWED[state]
    for verb in sorted(EVERY - ALLOWED[state]):
        with nothing_changes(system):
            refusal = system.client.refused(verb, "vol1")
        assert refusal.code == "not-allowed"
        assert f"{verb} is refused in state {state}" in refusal.message
        assert set(refusal.allowed) == ALLOWED[state]
        assert all(each in refusal.message for each in ALLOWED[state])


def test_operators_command_shows_the_refusal_and_ends_with_1(system: System, pair: Pair) -> None:
    system.set_up("vol1", pair.source, pair.target)
    with nothing_changes(system):
        done = system.cutover("commit", "vol1", "--yes")
    assert done.returncode == 1
    assert "commit is refused in state setup" in done.stderr
    assert "sync" in done.stderr
    assert "cleanup" in done.stderr
    assert done.stdout == ""


def test_setup_without_devices_is_refused_naming_both(system: System) -> None:
    with nothing_changes(system):
        refusal = system.client.refused("setup", "vol1")
    assert refusal.code == "bad-request"
    assert "source" in refusal.message
    assert "target" in refusal.message
