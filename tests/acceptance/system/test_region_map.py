"""After an unclean stop, and after a clean one in the middle of copying, only what can differ is copied; the rest is left alone.

What is left alone is told from what is copied by a byte that is changed on the target behind everyone's back, while no
host runs: where it stays, nothing was copied. That is also why `commit` wants a `verify` then.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.background import Background
from tests.acceptance.system.devices import MIB, digest
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, System, running_system

SIZE = 32 * MIB
UNTOUCHED = 20 * MIB + 123  # where no application of this test writes


@pytest.fixture(scope="module")
def _quick(background: Background) -> Iterator[System]:
    """Regions grow clean within a second."""
    with running_system(background, target_flush_interval_s=0.1, io_timeout_s=2) as system:
        yield system


@pytest.fixture
def running(_quick: System) -> Iterator[tuple[System, Pair]]:
    pair = make_pair(_quick, size_bytes=SIZE)
    _quick.set_up("vol1", pair.source, pair.target)
    yield _quick, pair
    _quick.mend()
    _quick.clean_up_all()


def change_byte(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


def kill_after_writes(system: System, state: str) -> None:
    """All is clean; then the application writes to the first 2 MiB, and the host is killed."""
    bring_to(system, "vol1", state)
    system.client.until("vol1", lambda status: status["resync_bytes"] == 0)
    with Application(system.export("vol1"), blocks=512) as application:
        application.until_operations(100)
        system.kill_service(CLONING)
        application.stop()


@pytest.mark.parametrize("state", ["source-selected", "target-selected"])
def test_after_a_kill_only_what_was_written_since_is_copied(running: tuple[System, Pair], state: str) -> None:
    system, pair = running
    kill_after_writes(system, state)
    change_byte(pair.target, UNTOUCHED)
    system.start_service(CLONING)
    client = system.client
    status = client.query("vol1")
    assert (status["state"], status["resync_bytes"], status["full_resync_because"]) == (
        "setup",
        2 * MIB,
        None,
    )
    # What is written before the sync counts, too, over a restart and over another kill.
    with Application(system.export("vol1"), seed=2, first_block=2048, blocks=256) as application:
        application.until_operations(50)
        second = application.stop()
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)
    system.kill_service(CLONING)
    system.start_service(CLONING)
    status = client.query("vol1")
    assert (status["resync_bytes"], status["full_resync_because"]) == (3 * MIB, None)
    assert "3 MiB of 32 MiB" in system.cutover("query", "vol1").stdout

    client.command("sync", "vol1")
    status = client.until_state("vol1", "source-selected")
    assert status["needs_verify"]
    assert second.differences(pair.target) == []
    assert digest(pair.source) != digest(pair.target), "a region that is clean was copied"
    change_byte(pair.target, UNTOUCHED)
    assert digest(pair.source) == digest(pair.target), "something else differs"

    client.command("select-target", "vol1")
    assert client.refused("commit", "vol1").code == "not-verified"
    client.command("verify", "vol1")
    client.until("vol1", lambda status: status["verified_at"] is not None)
    client.command("commit", "vol1")


def test_kill_in_mid_copy_leaves_what_was_copied_before(running: tuple[System, Pair]) -> None:
    system, _pair = running
    client = system.client
    client.command("throttle", "vol1", bytes_per_s=16 * MIB)
    client.command("sync", "vol1")
    client.until("vol1", lambda status: status["synced_bytes"] > 4 * MIB)
    client.command("pause", "vol1")
    client.until("vol1", lambda status: status["resync_bytes"] <= status["remaining_bytes"] + 2 * MIB)
    system.kill_service(CLONING)
    system.start_service(CLONING)
    status = client.query("vol1")
    assert status["state"] == "setup"
    assert status["full_resync_because"] is None
    assert status["resync_bytes"] < SIZE - 2 * MIB


def test_clean_stop_in_mid_copy_goes_on_from_the_map(running: tuple[System, Pair]) -> None:
    system, pair = running
    client = system.client
    client.command("throttle", "vol1", bytes_per_s=16 * MIB)
    with Application(system.export("vol1"), blocks=512) as application:
        client.command("sync", "vol1")
        client.until("vol1", lambda status: status["synced_bytes"] >= 4 * MIB)
        client.command("pause", "vol1")
        application.until_operations(100)
        application.stop()
        before = client.query("vol1")
    # Copied, and written since. Once the host has stopped, it would notice.
    change_byte(pair.target, MIB * 3 // 2)
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)
    after = client.query("vol1")
    assert after["state"] == "syncing"
    assert after["synced_bytes"] >= before["synced_bytes"]
    client.command("throttle", "vol1", bytes_per_s=None)
    client.command("resume", "vol1")
    client.until_state("vol1", "source-selected")
    assert digest(pair.source) != digest(pair.target), "a region was copied again"
    change_byte(pair.target, MIB * 3 // 2)
    assert digest(pair.source) == digest(pair.target)
    assert not client.query("vol1")["needs_verify"], "the attempt has copied everything, in two runs"


def _damage(path: Path) -> None:
    change_byte(path, path.stat().st_size - 4000)


@pytest.mark.parametrize(
    ("meddle", "words"), [(Path.unlink, "missing"), (_damage, "torn or damaged")], ids=["lost", "damaged"]
)
def test_map_that_cannot_be_believed_means_a_full_copy(
    running: tuple[System, Pair], meddle: Callable[[Path], None], words: str
) -> None:
    system, pair = running
    kill_after_writes(system, "source-selected")
    (file,) = (system.state_dir / "maps").glob("vol1.*")
    meddle(file)
    change_byte(pair.target, UNTOUCHED)
    system.start_service(CLONING)
    status = system.client.query("vol1")
    assert status["resync_bytes"] == SIZE
    assert words in status["full_resync_because"]
    system.client.command("sync", "vol1")
    status = system.client.until_state("vol1", "source-selected")
    assert not status["needs_verify"]
    assert digest(pair.source) == digest(pair.target)


def test_aborted_attempt_means_a_full_copy(running: tuple[System, Pair]) -> None:
    system, pair = running
    client = system.client
    bring_to(system, "vol1", "source-selected")
    client.until("vol1", lambda status: status["resync_bytes"] == 0)
    client.command("abort", "vol1")
    status = client.query("vol1")
    assert (status["resync_bytes"], status["full_resync_because"]) == (SIZE, "the last attempt was aborted")
    system.kill_service(CLONING)
    change_byte(pair.target, UNTOUCHED)
    system.start_service(CLONING)
    assert client.query("vol1")["full_resync_because"] == "the last attempt was aborted"
    client.command("sync", "vol1")
    client.until_state("vol1", "source-selected")
    assert digest(pair.source) == digest(pair.target)


def test_without_the_map_every_resync_is_full(own_system: Callable[..., System]) -> None:
    system = own_system(region_map=False, target_flush_interval_s=0.1, io_timeout_s=2)
    pair = make_pair(system, size_bytes=8 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    bring_to(system, "vol1", "source-selected")
    system.kill_service(CLONING)
    system.start_service(CLONING)
    status = system.client.query("vol1")
    assert status["resync_bytes"] == 8 * MIB
    assert "turned off" in status["full_resync_because"]
    assert not (system.state_dir / "maps").exists()
