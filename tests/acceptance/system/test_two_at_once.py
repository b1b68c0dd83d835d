"""The same command twice at the same moment: one wins, the other is told, and the journal holds it once."""

import json

from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.plain_client import Answer
from tests.acceptance.system.whole_system import HOST, System


def both(system: System, subject: str, first: bytes = b"", second: bytes = b"") -> list[Answer]:
    """Ask twice without waiting in between."""
    asked = [system.client.begin_asking(subject, payload) for payload in (first, second)]
    return [each.result(timeout=30) for each in asked]


def test_of_two_identical_syncs_one_wins_and_the_other_is_told(system: System, pair: Pair) -> None:
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("pause", "vol1")
    answers = [answer.body for answer in both(system, "cutover.control.sync.vol1")]
    won = [body for body in answers if "error" not in body]
    told = [body["error"] for body in answers if "error" in body]
    assert [body["state"] for body in won] == ["syncing"]
    assert [error["code"] for error in told] == ["busy"]
    assert told[0]["message"] == "sync of 'vol1' is refused: sync is under way."
    assert system.client.words("vol1")[-3:] == ["state setup", "flag-set", "state syncing"]


def test_syncs_at_once_by_way_of_two_state_controls_begin_one_attempt(system: System, pair: Pair) -> None:
    """Whoever loses the race on the journal or at the host is refused, and takes no flag away from the winner."""
    system.set_up("vol1", pair.source, pair.target)
    system.start_service("state_control", name="second state_control", wait=False)
    try:
        system.client.until_instances("cutover-state-control", 2)
        for attempt in range(1, 9):  # which of the two is asked is NATS's choice
            system.client.command("pause", "vol1")
            answers = [answer.body for answer in both(system, "cutover.control.sync.vol1")]
            assert ["error" in body for body in answers].count(False) == 1, answers
            status = system.client.query("vol1")
            assert (status["state"], status["attempt"], status["error_flag"]) == ("syncing", attempt, True)
            system.client.command("abort", "vol1")
            system.client.until("vol1", lambda status: not status["error_flag"], what="a clear flag")
    finally:
        system.kill_service("second state_control")


def test_same_operation_twice_at_once_is_done_once(system: System, pair: Pair) -> None:
    """A person who was not sure repeats the request with its operation id: done, not done twice."""
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("pause", "vol1")
    payload = json.dumps({"operation_id": "my-sync"}).encode()
    before = len(system.client.journal("vol1"))
    both(system, "cutover.control.sync.vol1", payload, payload)
    again = system.client.command("sync", "vol1", operation_id="my-sync")
    assert again["state"] == "syncing"
    assert again["attempt"] == 1
    assert len(system.client.journal("vol1")) == before + 2


def test_of_two_setups_of_one_name_one_wins(system: System, pair: Pair) -> None:
    other = make_pair(system, "other")
    requests = [
        json.dumps({"source": str(each.source), "target": str(each.target), "host": HOST}).encode()
        for each in (pair, other)
    ]
    answers = [answer.body for answer in both(system, "cutover.control.setup.vol1", *requests)]
    assert sorted("error" in body for body in answers) == [False, True]
    won = next(body for body in answers if "error" not in body)
    assert system.client.query("vol1")["uuid"] == won["uuid"]


def test_of_two_setups_of_one_device_one_wins(system: System, pair: Pair) -> None:
    request = json.dumps({"source": str(pair.source), "target": str(pair.target), "host": HOST}).encode()
    asked = [
        system.client.begin_asking(f"cutover.control.setup.{name}", request) for name in ("vol1", "vol2")
    ]
    answers = [each.result(timeout=30).body for each in asked]
    told = [body["error"]["code"] for body in answers if "error" in body]
    assert told == ["device-busy"]
