"""The stock `nats` program drives the system: every command is a request that a person can send by hand."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.whole_system import System

pytestmark = pytest.mark.nats_cli

SERVICE_NAMES = {
    "cutover-fault-recording",
    "cutover-startup",
    "cutover-state-control",
    "cutover-write-cloning",
}
TIMEOUT_S = 20.0

Nats = Callable[..., str]


@pytest.fixture
def nats(system: System, nats_cli: Path) -> Nats:
    """Runs the program on the system's server; what it prints."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [nats_cli, "--server", system.url, "--no-context", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    return run


def ask(nats: Nats, subject: str, payload: str = "") -> dict[str, object]:
    """Send a request by `nats req`, and have its answer."""
    answer: dict[str, object] = json.loads(nats("req", "--raw", "--timeout=10s", subject, payload))
    return answer


def test_whole_life_by_hand(system: System, pair: Pair, nats: Nats) -> None:
    devices = json.dumps({"source": str(pair.source), "target": str(pair.target)})
    assert ask(nats, "cutover.control.setup.vol1", devices)["state"] == "setup"
    assert ask(nats, "cutover.control.throttle.vol1", '{"bytes_per_s": 1048576000}')["state"] == "setup"
    for verb in ("pause", "resume"):
        assert ask(nats, f"cutover.control.{verb}.vol1")["state"] == "setup"
    assert ask(nats, "cutover.control.sync.vol1")["attempt"] == 1
    system.client.until_state("vol1", "source-selected")
    for verb, state in (
        ("select-target", "target-selected"),
        ("select-source", "source-selected"),
        ("select-target", "target-selected"),
        ("commit", "committed"),
    ):
        assert ask(nats, f"cutover.control.{verb}.vol1")["state"] == state
    query = ask(nats, "cutover.control.query.vol1")
    assert (query["name"], query["state"], query["authority"]) == ("vol1", "committed", "target")
    listed = ask(nats, "cutover.control.list")["migrations"]
    assert [each["name"] for each in listed] == ["vol1"]  # type: ignore[attr-defined]
    assert ask(nats, "cutover.control.faults.vol1") == {"faults": []}
    system.client.until("vol1", lambda status: not status["error_flag"])
    assert ask(nats, "cutover.control.cleanup.vol1")["state"] is None
    assert pair.source.read_bytes() == pair.target.read_bytes()


def test_abort_by_hand(system: System, pair: Pair, nats: Nats) -> None:
    system.set_up("vol1", pair.source, pair.target)
    ask(nats, "cutover.control.sync.vol1")
    assert ask(nats, "cutover.control.abort.vol1")["state"] == "setup"


def test_refusal_by_hand_has_code_sentence_and_choices(system: System, pair: Pair, nats: Nats) -> None:
    system.set_up("vol1", pair.source, pair.target)
    error = ask(nats, "cutover.control.commit.vol1")["error"]
    assert error == {
        "code": "not-allowed",
        "message": "commit is refused in state setup: the state does not allow it; allowed now: sync, cleanup.",
        "allowed": ["sync", "cleanup"],
    }


def test_services_are_found(nats: Nats) -> None:
    """`nats micro` is `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`."""
    listed = nats("micro", "ls")
    assert all(name in listed for name in SERVICE_NAMES)
    info = nats("micro", "info", "cutover-state-control")
    assert "cutover.control.commit.*" in info
    stats = nats("micro", "stats", "cutover-state-control")
    assert "commit" in stats


@pytest.mark.parametrize("verb", ["PING", "INFO", "STATS"])
def test_services_answer_the_discovery_subjects(nats: Nats, verb: str) -> None:
    lines = nats("req", "--raw", "--replies=4", "--timeout=5s", f"$SRV.{verb}", "").splitlines()
    answers = [json.loads(line) for line in lines if line.strip()]
    assert {answer["name"] for answer in answers} == SERVICE_NAMES
    assert {answer["type"] for answer in answers} == {f"io.nats.micro.v1.{verb.lower()}_response"}


def test_everything_that_happens_is_seen_by_subscribing(system: System, pair: Pair, nats_cli: Path) -> None:
    """`nats sub 'cutover.>'`: requests, records with their CloudEvents headers, and progress."""
    with subprocess.Popen(
        [nats_cli, "--server", system.url, "--no-context", "sub", "cutover.>"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as listening:
        try:
            assert listening.stdout is not None
            while "Subscribing" not in listening.stdout.readline():
                continue
            system.until_subscribed("cutover.>")
            with system.client.heard("cutover.progress.vol1") as progress:
                system.set_up("vol1", pair.source, pair.target)
                system.client.command("sync", "vol1")
                system.client.until_state("vol1", "source-selected")
                while json.loads(progress.get(timeout=TIMEOUT_S).data)["state"] != "source-selected":
                    continue
        finally:
            listening.terminate()
        seen, _ = listening.communicate(timeout=TIMEOUT_S)
    for subject in (
        "cutover.control.sync.vol1",
        "cutover.record.flag-set.h1.vol1",
        "cutover.journal.vol1.flag",
        "cutover.host.h1.enter.vol1",
        "cutover.decision.h1.vol1",
        "cutover.journal.vol1.state",
        "cutover.progress.vol1",
    ):
        assert f'"{subject}"' in seen, subject
    assert "ce-specversion: 1.0" in seen
    assert '"state":"source-selected"' in seen


def test_journal_is_read_by_hand(system: System, pair: Pair, nats: Nats) -> None:
    system.set_up("vol1", pair.source, pair.target)
    last = json.loads(
        nats("stream", "get", "CUTOVER_JOURNAL", "--last-for=cutover.journal.vol1.state", "--json")
    )
    assert last["subject"] == "cutover.journal.vol1.state"
    assert "CUTOVER_PROGRESS" in nats("stream", "ls", "--all")


def test_nobody_deletes_or_purges_the_journal_by_hand(system: System, pair: Pair, nats: Nats) -> None:
    system.set_up("vol1", pair.source, pair.target)
    before = system.client.journal("vol1")
    for command in (("purge", "CUTOVER_JOURNAL", "--force"), ("rmm", "CUTOVER_JOURNAL", "1", "--force")):
        with pytest.raises(AssertionError, match=r"not permitted|denied|can not|cannot"):
            nats("stream", *command)
    assert system.client.journal("vol1") == before
