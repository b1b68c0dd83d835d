"""The services' logs of a life in which everything happens: JSON, one line for each thing that matters, each saying of what."""

import json
import re
from typing import Any

import pytest

from tests.acceptance.system.everything import Lived
from tests.acceptance.system.whole_system import CLONING, HOST, SERVICES, System

FIELDS = {"time", "level", "service", "host", "run", "migration", "attempt", "message", "error"}


def lines_of(lived: Lived, service: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lived.logs[service].splitlines()]


def said(lived: Lived, service: str, migration: str) -> list[str]:
    """What a service has said of a migration."""
    return [line["message"] for line in lines_of(lived, service) if line.get("migration") == migration]


@pytest.mark.parametrize("service", SERVICES)
def test_every_line_is_an_object_that_says_when_how_bad_and_who(lived: Lived, service: str) -> None:
    lines = lines_of(lived, service)
    assert lines
    for line in lines:
        assert set(line) <= FIELDS, line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in {"info", "warning", "error", "critical"}
        assert line["service"] == service
        assert "error" not in line, line


@pytest.mark.parametrize("service", SERVICES)
def test_every_line_about_a_migration_has_its_attempt_and_host(lived: Lived, service: str) -> None:
    about = [line for line in lines_of(lived, service) if "migration" in line]
    assert about
    # Before a migration is there, and of one whose records cannot be had, nobody knows an attempt.
    unknown = ("stays closed", "was cleaned up", "setup is refused", "recorded: the journal is repaired")
    for line in about:
        message = line["message"]
        if not any(words in message for words in unknown):
            assert isinstance(line.get("attempt"), int), line
            assert line.get("host") == HOST, line


def test_a_host_says_which_run_of_it_speaks(lived: Lived) -> None:
    runs = [line["run"] for line in lines_of(lived, CLONING) if "run" in line]
    assert sorted(set(runs)) == [1, 2, 3, 4]
    assert runs == sorted(runs)


def test_a_whole_life_is_told_once_each_in_order(lived: Lived) -> None:
    told = said(lived, CLONING, "vol1")
    client = [each for each in told if "is connected to" in each or "is gone from" in each]
    assert len(client) == 2
    compared = [each for each in told if each.startswith(("comparing", "source and target"))]
    assert compared == ["comparing source and target", "source and target are equal"]
    others = [re.sub(r" decision \d+.*", "", each) for each in told if each not in {*client, *compared}]
    assert others == [
        "set up, and open",
        "decided: setup → syncing by sync,",
        "decided: syncing → source-selected by copied,",
        "decided: source-selected → target-selected by select-target,",
        "decided: target-selected → source-selected by select-source,",
        "decided: source-selected → target-selected by select-target,",
        "decided: target-selected → committed by commit,",
        "decided: committed → (removed) by cleanup,",
        "closed, and let go",
    ]


def test_every_record_is_told_by_the_service_that_has_stored_it(lived: Lived) -> None:
    assert [each for each in said(lived, "fault_recording", "vol1") if each.startswith("recorded")] == [
        "recorded: the error flag is set",
        "recorded: the error flag is clear",
    ]
    control = said(lived, "state_control", "vol1")
    assert sum(each == "recorded: a commit is intended" for each in control) == 1
    assert sum(each.startswith("recorded: committed by commit") for each in control) == 1
    assert "recorded: cleaned up, was committed" in control
    assert any(
        each.startswith("recorded: the journal is repaired") for each in said(lived, "state_control", "vol2")
    )
    faults = said(lived, "fault_recording", "vol2")
    assert "recorded: a fault of the target in source-selected: shutdown: unclean-shutdown" in faults


def test_commands_are_told_with_what_became_of_them_and_questions_are_not(lived: Lived) -> None:
    told = said(lived, "state_control", "vol1")
    assert "commit is done: committed" in told
    assert any(each.startswith("commit is refused: not-allowed: ") for each in told)
    everything = [line["message"] for line in lines_of(lived, "state_control")]
    assert not any(each.startswith(("query", "faults", "recover ")) for each in everything)


def test_admissions_and_closed_volumes_are_told(lived: Lived) -> None:
    assert any(each.startswith("admitted as unclean in setup") for each in said(lived, "startup", "vol2"))
    assert any(
        each.startswith("admitted as unclean and open in setup") for each in said(lived, CLONING, "vol2")
    )
    assert any("has no witness of it" in each for each in said(lived, CLONING, "vol3"))
    assert "closed" in said(lived, CLONING, "vol2")


def test_nothing_is_told_for_each_request(lived: Lived) -> None:
    """Hundreds of reads and writes, and dozens of questions; a line for none of them."""
    assert sum(len(lines_of(lived, service)) for service in SERVICES) < 200


def test_a_journal_that_is_away_is_told_once_and_so_is_its_return(stoppable_system: System) -> None:
    """As text: what a person reads has the same context."""
    before = {service: len(stoppable_system.log(service)) for service in SERVICES}
    stoppable_system.stop_nats()
    stoppable_system.start_nats()
    for service in SERVICES:
        stoppable_system.wait_ready(service)
        told = stoppable_system.log(service)[before[service] :]
        assert told.count("is lost") == 1, told
        assert told.count("is back") == 1, told
        assert re.search(rf"^\S+Z INFO +{service}( host=h1 run=\d+)?: The connection", told, re.MULTILINE)
