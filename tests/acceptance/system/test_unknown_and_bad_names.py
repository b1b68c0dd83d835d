"""Names that no migration has, and names that none can have."""

import pytest

from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.unchanged import nothing_changes
from tests.acceptance.system.whole_system import System

OF_ONE = (
    "sync", "pause", "resume", "select-target", "select-source", "commit", "abort", "cleanup", "query", "faults",
)  # fmt: skip
BAD_NAMES = ("Vol1", "-vol", "a_b", "vol!", "ä", "x" * 64)


@pytest.mark.parametrize("verb", OF_ONE)
def test_command_for_unknown_migration_is_refused_by_its_name(system: System, verb: str) -> None:
    with nothing_changes(system):
        refusal = system.client.refused(verb, "nobody")
    assert refusal.code == "unknown-migration"
    assert refusal.message == "There is no migration 'nobody'."


def test_throttle_for_unknown_migration_is_refused_by_its_name(system: System) -> None:
    with nothing_changes(system):
        refusal = system.client.refused("throttle", "nobody", bytes_per_s=1)
    assert refusal.code == "unknown-migration"


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("verb", ["setup", "sync", "query"])
def test_bad_name_is_refused_with_the_rule(system: System, pair: Pair, verb: str, name: str) -> None:
    fields = {"source": str(pair.source), "target": str(pair.target)} if verb == "setup" else {}
    with nothing_changes(system, pair.source, pair.target):
        refusal = system.client.refused(verb, name, **fields)
    assert refusal.code == "bad-name"
    assert repr(name) in refusal.message
    assert "lower-case letters, digits and hyphens" in refusal.message


@pytest.mark.parametrize("name", ["Vol1", "a b", "a.b", "*", ">", ""])
def test_operators_command_refuses_bad_name_as_usage(system: System, name: str) -> None:
    """Some of these would not even be a subject, so the console refuses them before anything is sent."""
    with nothing_changes(system):
        done = system.cutover("query", name)
    assert done.returncode == 2
    assert "lower-case letters, digits and hyphens" in done.stderr


def test_name_that_is_taken_is_refused_with_the_state(system: System, pair: Pair) -> None:
    system.set_up("taken", pair.source, pair.target)
    with nothing_changes(system):
        refusal = system.client.refused("setup", "taken", source=str(pair.source), target=str(pair.target))
    assert refusal.code == "name-taken"
    assert "'taken'" in refusal.message
    assert "setup" in refusal.message


def test_unknown_host_is_refused_naming_those_that_are_up(system: System, pair: Pair) -> None:
    with nothing_changes(system, pair.source, pair.target):
        refusal = system.client.refused(
            "setup", "vol1", source=str(pair.source), target=str(pair.target), host="elsewhere"
        )
    assert refusal.code == "host-unknown"
    assert refusal.message == "Host 'elsewhere' does not answer; the hosts that are up are: h1."
