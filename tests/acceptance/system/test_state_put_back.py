"""What a host keeps comes back from a backup, or from the time before another host had the migration: it is not believed."""

import shutil
from collections.abc import Iterator

import pytest

from shared.messages.host import HOST_SERVICE_NAME
from tests.acceptance.system.application import Application, Report
from tests.acceptance.system.background import Background
from tests.acceptance.system.devices import MIB
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, HOST, System, running_system

OTHER = "h2"
STARTS = 2  # as a supervisor makes them, one after the other


@pytest.fixture
def quick(background: Background) -> Iterator[tuple[System, Pair]]:
    """Regions grow clean at once, so that there is a map which narrows the next resync."""
    with running_system(background, target_flush_interval_s=0.1, io_timeout_s=2) as system:
        pair = make_pair(system, size_bytes=16 * MIB)
        system.set_up("vol1", pair.source, pair.target)
        yield system, pair


def to_setup_with_a_trusted_map(system: System) -> None:
    bring_to(system, "vol1", "source-selected")
    system.client.until("vol1", lambda status: status["resync_bytes"] == 0)
    system.kill_service(CLONING)
    system.start_service(CLONING)
    status = system.client.query("vol1")
    assert (status["state"], status["full_resync_because"]) == ("setup", None)


def applied(uri: str) -> Report:
    """What an application has been told to be written and flushed."""
    with Application(uri, blocks=2048, seed=7) as application:
        application.until_operations(200)
        report = application.stop()
    assert report.errors == []
    return report


def put_back(system: System, *names: str) -> None:
    for name in names:
        place, kept = system.state_dir / name, system.folder / "backup" / name
        if kept.is_dir():
            shutil.rmtree(place)
            shutil.copytree(kept, place)
        else:
            shutil.copy(kept, place)


def back_up(system: System) -> None:
    ignored = shutil.ignore_patterns("*.sock", "lock")
    shutil.copytree(system.state_dir, system.folder / "backup", ignore=ignored)


@pytest.mark.parametrize("state", ["setup", "source-selected"])
def test_state_directory_from_before_a_run_is_refused_however_often_it_is_started(
    quick: tuple[System, Pair], state: str
) -> None:
    """Failing, a stale target passes for a good one.

    The second start counted past the run that the first was refused for, and called that run's flag set in vain. In `setup`
    no run left a record, and the map missed what it had written.
    """
    system, pair = quick
    if state == "setup":
        to_setup_with_a_trusted_map(system)
    else:
        bring_to(system, "vol1", state)
    assert system.stop_service(CLONING) == 0
    back_up(system)
    system.start_service(CLONING)
    applied(system.export("vol1"))
    system.kill_service(CLONING)
    put_back(system, *(path.name for path in (system.folder / "backup").iterdir()))
    target = pair.target.read_bytes()
    for _start in range(STARTS):
        system.start_service(CLONING, wait=False)
        assert system.until_gone(CLONING) == 2
    assert system.log(CLONING).count("or an old copy: bring the right one back") == STARTS
    assert pair.target.read_bytes() == target


def test_witness_of_last_week_is_not_believed_though_it_is_lost_when_volumes_were_opened(
    quick: tuple[System, Pair],
) -> None:
    """Cause: nothing was known of openings, as in version 0.1.0, and the journal was not asked. Failing, its map is believed."""
    system, _pair = quick
    to_setup_with_a_trusted_map(system)
    assert system.stop_service(CLONING) == 0
    back_up(system)
    system.start_service(CLONING)
    assert system.stop_service(CLONING) == 0
    put_back(system, "witnesses", "maps")
    openings = system.state_dir / "openings"
    openings.write_bytes(b"{")
    system.start_service(CLONING, wait=False)
    assert system.until_gone(CLONING) == 2
    assert "host.state_dir: the file 'openings' cannot be read: it is damaged" in system.log(CLONING)
    openings.unlink()
    for _start in range(STARTS):
        system.start_service(CLONING)
        (closed,) = system.host_status()["closed"]
        assert "its witness is an old copy" in closed["message"]
        assert system.stop_service(CLONING) == 0


def test_map_of_last_week_is_not_believed_though_an_operator_says_that_the_source_counts(
    quick: tuple[System, Pair],
) -> None:
    """Cause: the word stood in place of the old witness, and the map that it named was trusted all the same."""
    system, pair = quick
    to_setup_with_a_trusted_map(system)
    assert system.stop_service(CLONING) == 0
    back_up(system)
    system.start_service(CLONING)
    report = applied(system.export("vol1"))
    assert system.stop_service(CLONING) == 0
    put_back(system, "witnesses", "maps")
    system.start_service(CLONING)
    (closed,) = system.host_status()["closed"]
    assert "its witness is an old copy" in closed["message"]
    assert system.cutover("adopt", "vol1", "--authority", "source", "--yes").returncode == 0
    to_target(system, "an operator's word")
    assert report.differences(pair.target) == []


def test_map_of_before_another_host_had_the_migration_is_not_believed(quick: tuple[System, Pair]) -> None:
    """Cause: as above, after a takeover and back."""
    system, pair = quick
    to_setup_with_a_trusted_map(system)
    environment = (f"CUTOVER_HOST_NAME={OTHER}", f"CUTOVER_HOST_STATE_DIR={system.folder / OTHER}")
    system.start_service(CLONING, name=OTHER, wait=False, under=("env", *environment))
    system.client.until_instances(HOST_SERVICE_NAME, 2)
    assert system.stop_service(CLONING) == 0
    give(system, OTHER)
    report = applied(f"nbd+unix:///vol1?socket={system.folder / OTHER / 'nbd.sock'}")
    system.start_service(CLONING)
    assert system.stop_service(OTHER) == 0
    give(system, HOST)
    to_target(system, "an operator's word")
    assert report.differences(pair.source) == []
    assert report.differences(pair.target) == []


def test_map_that_a_backup_took_beside_a_host_at_work_is_not_believed(quick: tuple[System, Pair]) -> None:
    """Failing, a stale target passes for a good one. Run, attempt and decision are the last ones; only the marks are old."""
    system, pair = quick
    to_setup_with_a_trusted_map(system)
    back_up(system)
    report = applied(system.export("vol1"))
    system.kill_service(CLONING)
    put_back(system, *(path.name for path in (system.folder / "backup").iterdir()))
    system.start_service(CLONING)
    to_target(system, "a copy of what was written")
    assert report.differences(pair.target) == []


def give(system: System, host: str) -> None:
    done = system.cutover("adopt", "vol1", "--authority", "source", "--host", host, "--yes")
    assert done.returncode == 0, done.stderr


def to_target(system: System, because: str) -> None:
    status = system.client.query("vol1")
    assert status["resync_bytes"] == status["size_bytes"]
    assert because in status["full_resync_because"]
    bring_to(system, "vol1", "target-selected")
