"""SIGKILL of any part at any moment: nothing acknowledged is lost, and nothing stale is taken for good."""

import pytest

from tests.acceptance.system.whole_system import CLONING
from tests.crashes.cases import CLONES, KILLS, Case, chosen
from tests.crashes.course import NAME, course
from tests.crashes.dying import death, started_under, until_dead
from tests.crashes.evidence import Decided, after_unclean_stop, decided, settled
from tests.crashes.machine import Machine, parts_of


@pytest.mark.parametrize("case", chosen(KILLS, 30), ids=str)
def test_kill_loses_nothing_that_was_acknowledged(machine: Machine, case: Case) -> None:
    with course(machine, case) as running:
        if case.command == "start":
            before = _dies_again(machine, case)
        else:
            with death(machine, case):
                if case.command:
                    running.give(case.command)
            before = decided(machine, NAME)
            if case.command not in {"resume", "pause"} and (answer := running.answer()) is not None:
                assert answer["state"] == before.state, "success was answered before it was durable"
        machine.mend()
        has_host_died = CLONING in parts_of(case.victim) or case.command == "start"
        _check_verdict(machine, before, has_host_died=has_host_died)
        report = running.prove()
        if not has_host_died and case.command not in {"setup", "cleanup"}:
            assert (report.lives, report.errors) == (1, []), "the application has noticed"


def _dies_again(machine: Machine, case: Case) -> Decided:
    """Kill the host, and whatever the case says while it starts again."""
    machine.kill(CLONING)
    before = decided(machine, NAME)
    if case.moment.syscall:
        machine.start_service(CLONING, wait=False, under=started_under(case.moment))
        until_dead(machine, CLONING)
    else:
        with death(machine, case):
            machine.start_service(CLONING, wait=False)
    machine.kill(CLONING)
    return before


def _check_verdict(machine: Machine, before: Decided, *, has_host_died: bool) -> None:
    status = settled(machine, NAME)
    now = decided(machine, NAME)
    if status is None:
        assert before.state in {None, "setup"}
        return
    assert (status["state"], status["authority"], status["attempt"]) == (
        now.state,
        now.authority,
        now.attempt,
    )
    causes = [(fault["side"], fault["cause"]) for fault in status["faults"]]
    if has_host_died:
        assert now == after_unclean_stop(before) or before.state is None
        expected = [("target", "unclean-shutdown")] if before.state in CLONES else []
        assert causes in (expected, expected * 2) or now.state == "committed"
        if now.state in {"setup", "committed"}:
            assert not status["error_flag"]
    else:
        assert causes == []
