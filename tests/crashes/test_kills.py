"""SIGKILL of any part at any moment: nothing acknowledged is lost, and nothing stale is taken for good."""

import pytest

from tests.acceptance.system.whole_system import CLONING
from tests.crashes.cases import KILLS, Case, chosen
from tests.crashes.course import NAME, course
from tests.crashes.dying import death, started_under, until_dead
from tests.crashes.evidence import Decided, check_verdict, decided
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
                # The copy may have come to its end since then, by a decision that waits for nobody.
                later = {"source-selected"} if case.command == "sync" else set()
                assert before.state in {answer["state"], *later}, "success was answered before it was durable"
        machine.mend()
        has_host_died = CLONING in parts_of(case.victim) or case.command == "start"
        check_verdict(machine, NAME, before, has_host_died=has_host_died)
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
