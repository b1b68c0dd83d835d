"""SIGTERM of any part in any state: either it was clean and all goes on where it was, or it counts as a crash."""

import pytest

from tests.acceptance.system.whole_system import CLONING
from tests.crashes.cases import CLONES, STOPS, Case, chosen
from tests.crashes.course import NAME, course
from tests.crashes.evidence import after_unclean_stop, decided, settled
from tests.crashes.machine import NATS, Machine, parts_of


@pytest.mark.parametrize("case", chosen(STOPS, 6), ids=str)
def test_stop_is_clean_or_counts_as_a_crash(machine: Machine, case: Case) -> None:
    with course(machine, case) as running:
        if case.kind == "stop without NATS":
            machine.stop_nats()
        statuses = machine.terminate(case.victim)
        has_host_stopped = CLONING in parts_of(case.victim)
        was_clean = statuses.get(CLONING, 0) == 0
        assert [service for service, status in statuses.items() if status and service != CLONING] == []
        if case.kind == "stop without NATS" and case.state in CLONES:
            assert not was_clean, "no flag can be cleared"
        if case.victim == CLONING and machine.runs(NATS):
            assert was_clean
        before = decided(machine, NAME)
        machine.mend()
        status = settled(machine, NAME)
        assert status is not None
        expected = before if was_clean else after_unclean_stop(before)
        assert (status["state"], status["attempt"]) == (expected.state, expected.attempt)
        faults = [(fault["side"], fault["cause"]) for fault in status["faults"]]
        assert faults == ([] if was_clean or case.state not in CLONES else [("target", "unclean-shutdown")])
        report = running.prove()
        assert report.errors == []
        assert report.lives == 1 + has_host_stopped
