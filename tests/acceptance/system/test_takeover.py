"""A migration whose host is lost for good goes to another by the operator's word, and never while the first may still write."""

import json
import signal
import time
from collections.abc import Iterator

import pytest

from services.write_cloning.journal_watch import INTERVAL_S
from shared.messages.host import HOST_SERVICE_NAME
from tests.acceptance.system.application import Application
from tests.acceptance.system.devices import digest
from tests.acceptance.system.journal_store import lose_the_store
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, HOST, System

OTHER = "h2"


@pytest.fixture
def two_hosts(running: tuple[System, Pair]) -> Iterator[tuple[System, Pair]]:
    """A second host beside the first, with a state directory of its own and the same devices allowed."""
    system, pair = running
    environment = (f"CUTOVER_HOST_NAME={OTHER}", f"CUTOVER_HOST_STATE_DIR={system.folder / OTHER}")
    system.start_service(CLONING, name=OTHER, wait=False, under=("env", *environment))
    system.client.until_instances(HOST_SERVICE_NAME, 2)
    yield system, pair
    if system.is_running(OTHER):
        system.kill_service(OTHER)


def export_on_other(system: System) -> str:
    return f"nbd+unix:///vol1?socket={system.folder / OTHER / 'nbd.sock'}"


def adopt(system: System, authority: str, host: str) -> tuple[int, str]:
    done = system.cutover("adopt", "vol1", "--authority", authority, "--host", host, "--yes")
    return done.returncode, done.stderr


def test_other_host_takes_over_what_a_lost_one_had(two_hosts: tuple[System, Pair]) -> None:
    system, pair = two_hosts
    with Application(system.export("vol1"), blocks=1024) as application:
        bring_to(system, "vol1", "source-selected")
        application.until_operations(100)
        status, said = adopt(system, "source", OTHER)
        assert status == 1
        assert f"belongs to host '{HOST}', which is up" in said
        system.kill_service(CLONING)
        report = application.stop()
    in_source = digest(pair.source)
    known = json.loads(system.cutover("recover", "vol1", "--host", OTHER, "--json").stdout)
    assert (known["standing"], known["host"], known["proved"]) == ("away", OTHER, False)
    refusal = system.client.refused("adopt", "vol1", authority="source", host=OTHER)
    assert refusal.code == "consent-needed"
    assert "it must be off for good" in refusal.message

    assert adopt(system, "source", OTHER) == (0, "")
    taken = system.client.query("vol1")
    assert (taken["host"], taken["state"], taken["error_flag"]) == (OTHER, "setup", False)
    assert report.differences(pair.source) == []
    assert digest(pair.source) == in_source
    with Application(export_on_other(system), seed=2) as application:
        application.until_operations(50)
        assert application.stop().errors == []

    # The first one comes back: it has nothing to say any more.
    system.start_service(CLONING)
    (closed,) = system.host_status()["closed"]
    assert f"it was given to host '{OTHER}'" in closed["message"]
    assert system.client.query("vol1")["host"] == OTHER
    # And back again, though the other's runs count lower than the first one's.
    system.kill_service(OTHER)
    assert adopt(system, "source", HOST) == (0, "")
    system.client.command("sync", "vol1")
    system.client.command("resume", "vol1")
    system.client.until_state("vol1", "source-selected")
    assert digest(pair.source) == digest(pair.target)


def test_host_that_only_hangs_keeps_its_devices(two_hosts: tuple[System, Pair]) -> None:
    """It answers nobody, and looks lost; but its locks hold, and what it still writes hurts nobody."""
    system, _pair = two_hosts
    bring_to(system, "vol1", "target-selected")
    system.signal_service(CLONING, signal.SIGSTOP)
    status, said = adopt(system, "target", OTHER)
    assert status == 1
    assert "device-busy" in said
    system.signal_service(CLONING, signal.SIGCONT)
    assert system.client.query("vol1")["host"] == HOST
    assert system.client.command("select-source", "vol1")["state"] == "source-selected"


def test_name_that_the_journal_has_lost_is_not_set_up_elsewhere(two_hosts: tuple[System, Pair]) -> None:
    """Cause: the second host was given the name, and the first one's volume stayed closed and was in no answer."""
    system, pair = two_hosts
    bring_to(system, "vol1", "source-selected")
    lose_the_store(system)
    another = make_pair(system, "another", size_bytes=1 << 20)
    fields = {"source": str(another.source), "target": str(another.target), "host": OTHER}
    refusal = system.client.refused("setup", "vol1", **fields)
    assert refusal.code == "journal-unsound"
    assert f"which host '{HOST}' has open" in refusal.message

    # A host that is away can be asked nothing. It comes back to find its name given away, and both are told of.
    system.kill_service(CLONING)
    system.client.command("setup", "vol1", **fields)
    system.start_service(CLONING)
    told = system.cutover("list", "--json")
    assert told.returncode == 1
    by_host = {each["host"]: each for each in json.loads(told.stdout)}
    assert (by_host[OTHER]["state"], by_host[OTHER]["host_error"]) == ("setup", None)
    assert by_host[HOST]["journal_condition"] == "another"
    assert "keeps closed" in by_host[HOST]["warnings"][0]

    # What the warning advises brings it back, with every write that it had.
    system.client.command("cleanup", "vol1")
    known = json.loads(system.cutover("recover", "vol1", "--json").stdout)
    assert (known["standing"], known["host"]) == ("closed", HOST)
    assert system.cutover("recover", "vol1", "--try-again").returncode == 0
    assert system.client.query("vol1")["state"] == "setup"
    with Application(system.export("vol1")) as application:
        application.until_operations(50)
        assert application.stop().differences(pair.source) == []


def test_host_that_was_taken_over_before_a_clean_up_revives_nothing(two_hosts: tuple[System, Pair]) -> None:
    """Cause: `list` called the journal lost, and who adopted by its advice went past the tombstone, to the stale side."""
    system, pair = two_hosts
    bring_to(system, "vol1", "target-selected")
    system.kill_service(CLONING)
    assert adopt(system, "target", OTHER) == (0, "")
    system.start_service(CLONING)
    with Application(export_on_other(system)) as application:
        application.until_operations(50)
        assert application.stop().errors == []
    system.client.command("cleanup", "vol1")
    assert [each["name"] for each in system.host_status()["closed"]] == ["vol1"], "it has not asked since"

    told = system.cutover("list", "--json")
    assert (told.returncode, json.loads(told.stdout)) == (0, [])
    status, said = adopt(system, "source", HOST)
    assert status == 1
    assert "was cleaned up" in said
    assert system.client.words("vol1")[-1] == "tombstone"
    # Nor does it keep the name, or stand in the way of another migration that it takes over.
    system.client.command(
        "setup", "vol1", source=str(pair.target), target=str(pair.source), host=OTHER, overwrite_target=True
    )
    system.kill_service(OTHER)
    assert adopt(system, "source", HOST) == (0, "")
    taken = system.client.query("vol1")
    assert (taken["host"], taken["host_error"], taken["state"]) == (HOST, None, "setup")


def test_host_that_was_taken_over_forgets_what_was_cleaned_up_since_by_itself(
    two_hosts: tuple[System, Pair],
) -> None:
    """Cause: it went on to be called closed by its doctor, with advice that led nowhere, until it was started again."""
    system, _pair = two_hosts
    system.kill_service(CLONING)
    assert adopt(system, "source", OTHER) == (0, "")
    system.start_service(CLONING)
    assert [each["name"] for each in system.host_status()["closed"]] == ["vol1"]
    system.client.command("cleanup", "vol1")
    deadline = time.monotonic() + 3 * INTERVAL_S
    while system.host_status()["closed"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
