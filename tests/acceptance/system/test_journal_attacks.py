"""The journal under attack: whatever became of it, it is repaired or the volume is closed, and nothing is called clean."""

from collections.abc import Callable

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.devices import digest
from tests.acceptance.system.journal_store import (
    Copy,
    copy_store,
    cut_short,
    flip_bit,
    made_again,
    put_back,
    until_all_serve,
)
from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, System

GONE_BACK = "has gone back: it lacks a record that host 'h1' relied on"


def assert_unclean(system: System, pair: Pair, in_source: str) -> None:
    """The journal was repaired from the witness, and the stop counts as unclean."""
    status = system.client.until("vol1", lambda each: each["state"] == "setup" and not each["error_flag"])
    assert "repair" in system.client.words("vol1")
    assert [each["cause"] for each in status["faults"]] == ["unclean-shutdown"]
    assert status["warnings"] == []
    assert digest(pair.source) == in_source
    system.client.command("sync", "vol1")
    system.client.command("resume", "vol1")
    system.client.until_state("vol1", "source-selected")
    assert digest(pair.source) == digest(pair.target)


def test_journal_that_goes_back_under_a_running_host_freezes_it(running: tuple[System, Pair]) -> None:
    """Cause: the next record on top made the old journal look whole, with the clear of an earlier attempt as its last flag.

    Failing, the host decides and records on it, and after a kill the target is served as if nothing were missing on it.
    """
    system, pair = running
    client = system.client
    bring_to(system, "vol1", "syncing")
    client.command("abort", "vol1")
    client.until("vol1", lambda status: not status["error_flag"])
    backup = copy_store(system, "last-week")
    until_all_serve(system)
    client.command("pause", "vol1")
    client.command("sync", "vol1")
    with Application(system.export("vol1"), blocks=1024) as application:
        put_back(system, backup)
        until_all_serve(system)
        length = client.journal_length()
        status = client.until("vol1", lambda status: status["warnings"])
        assert GONE_BACK in status["warnings"][0]
        shown = " ".join(system.cutover("query", "vol1").stdout.split())
        assert "is restarted, which has the journal repaired" in shown
        assert client.refused("commit", "vol1").code == "journal-unsound"
        client.command("resume", "vol1")
        system.until_log(CLONING, "The journal of 'vol1' has gone back", timeout_s=20)
        application.until_operations(100)
        assert system.host_status()["migrations"][0]["state"] == "syncing"
        assert GONE_BACK in system.host_status()["warnings"][0]
        system.kill_service(CLONING)
        report = application.stop()
    assert client.journal_length() == length, "nothing was recorded on it"
    in_source = digest(pair.source)
    system.start_service(CLONING)
    assert report.differences(pair.source) == []
    assert_unclean(system, pair, in_source)


@pytest.mark.slow
def test_journal_that_has_gone_is_told_of_and_a_clean_stop_is_not_called_clean(
    running: tuple[System, Pair],
) -> None:
    system, pair = running
    bring_to(system, "vol1", "source-selected")
    made_again(system)
    refusal = system.client.refused("query", "vol1")
    assert refusal.code == "journal-unsound"
    assert "which host 'h1' has open" in refusal.message
    in_source = digest(pair.source)
    assert system.stop_service(CLONING) == 1
    system.start_service(CLONING)
    assert_unclean(system, pair, in_source)


def power_cut(system: System, set_up: Copy) -> None:
    """A server that did not sync loses what it has acknowledged: all that followed the set-up."""
    put_back(system, set_up)


def flipped(system: System, _set_up: Copy) -> None:
    flip_bit(system, b'"kind":"flag-set"')


def truncated(system: System, _set_up: Copy) -> None:
    cut_short(system, b'"kind":"flag-clear"')


def deleted(system: System, _set_up: Copy) -> None:
    made_again(system)


@pytest.mark.parametrize(
    "attack", [power_cut, flipped, truncated, deleted], ids=lambda attack: attack.__name__
)
def test_journal_that_was_damaged_while_the_host_was_down_is_repaired_and_the_stop_unclean(
    running: tuple[System, Pair], attack: Callable[[System, Copy], None]
) -> None:
    """Even after a clean stop: that it was clean stood in the journal alone."""
    system, pair = running
    set_up = copy_store(system, "set-up")
    until_all_serve(system)
    bring_to(system, "vol1", "source-selected")
    assert system.stop_service(CLONING) == 0
    in_source = digest(pair.source)
    attack(system, set_up)
    for service in ("fault_recording", "state_control", "startup"):
        system.wait_ready(service)
    system.start_service(CLONING)
    assert_unclean(system, pair, in_source)


@pytest.mark.parametrize("state", ["setup", "source-selected"])
def test_journal_of_before_a_clean_up_opens_nothing_again(running: tuple[System, Pair], state: str) -> None:
    """It looks like that of a volume whose witness is lost, or that was never cloned: a stale source would be served.

    Cause of the second: adopting it was advised, which the host then did not heed.
    """
    system, pair = running
    client = system.client
    bring_to(system, "vol1", state)
    old = copy_store(system, state)
    until_all_serve(system)
    if state != "setup":
        client.command("abort", "vol1")
        client.until("vol1", lambda each: not each["error_flag"])
    bring_to(system, "vol1", "committed")
    client.command("cleanup", "vol1")
    assert system.stop_service(CLONING) == 0
    put_back(system, old)
    until_all_serve(system)
    system.start_service(CLONING)
    status = client.query("vol1")
    assert "cleaned up on this host" in status["host_error"], status
    assert status["export_uri"] is None
    client.command("give-up", "vol1", accept=True)
    assert client.refused("query", "vol1").code == "unknown-migration"
    system.set_up("vol1", pair.source, pair.target, overwrite_target=True)


def test_journal_of_somebody_else_keeps_the_volume_closed(running: tuple[System, Pair]) -> None:
    system, _pair = running
    backup = copy_store(system, "ours")
    until_all_serve(system)
    first = system.client.journal("vol1")[-1].record
    uuid = first["uuid"]
    other = "00000000-0000-4000-8000-00000000000f"
    made_again(system, first | {"uuid": other, "index": 1, "previous_digest": ""})
    status = system.client.query("vol1")
    assert uuid in status["host_error"]
    assert status["allowed"] == []
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)
    status = system.client.query("vol1")
    assert f"has a migration of that name with the UUID {other}" in status["host_error"]
    assert (status["export_uri"], status["allowed"]) == (None, [])
    assert system.stop_service(CLONING) == 0
    put_back(system, backup)
    for service in ("fault_recording", "state_control", "startup"):
        system.wait_ready(service)
    system.start_service(CLONING)
    assert system.client.query("vol1")["export_uri"]
