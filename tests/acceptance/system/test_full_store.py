"""The NATS server's file system is full: everyone says so, also once there is room again, until the server is restarted."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.migration.recovery import Choice
from tests.acceptance.system.journal_store import until_all_serve
from tests.acceptance.system.page_watcher import Watcher, monitored
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, System

pytestmark = pytest.mark.needs_root

NO_SPACE = "no space left on device"
REMEDY = "Make room for the NATS server's store, and restart that server"
NOT_JUDGED = "Not everything could be judged yet"
WAIT_S = 30.0


@contextmanager
def small_store(system: System) -> Iterator[Path]:
    """The journal's store, on a file system of 8 MiB."""
    store = system.folder / "nats" / "jetstream"
    system.stop_nats()
    kept = system.folder / "store"
    store.rename(kept)
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(store)], check=True)
    try:
        shutil.copytree(kept, store, dirs_exist_ok=True)
        system.start_nats()
        until_all_serve(system)
        yield store
    finally:
        system.stop_nats()
        subprocess.run(["umount", "--lazy", str(store)], check=True)
        system.start_nats()


def fill(store: Path) -> Path:
    """Leave no room at all."""
    filler = store / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    return filler


def said(system: System, *arguments: str) -> str:
    """What a command shows, wherever the lines break."""
    return " ".join(system.cutover(*arguments).stdout.split())


def test_full_store_is_told_by_everyone_until_the_server_is_restarted(
    own_system: Callable[..., System],
) -> None:
    system = own_system()
    client = system.client
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    bring_to(system, "vol1", "source-selected")
    with small_store(system) as store:
        filler = fill(store)
        assert not client.command("abort", "vol1")["journal"]
        filler.unlink()  # there is room again, and the server does not care

        waiting = client.until("vol1", lambda each: NO_SPACE in "".join(each["warnings"]), timeout_s=WAIT_S)
        assert waiting["journal_wait"]["what"] == "decision 4 (setup), that the error flag is clear"
        assert REMEDY in "".join(waiting["warnings"])
        for look in (("query", "vol1"), ("list",)):
            assert REMEDY in said(system, *look), look
        refused = system.cutover("sync", "vol1")
        assert "decision 4 (setup), that the error flag is clear. What keeps it: " in refused.stderr
        assert NO_SPACE in refused.stderr
        doctor = system.cutover("doctor", "--config", str(system.config)).stdout
        assert "failure journal         the NATS server cannot store: " in doctor
        assert "failure journal         The journal does not hold all of 'vol1'" in doctor

        system.kill_service(CLONING)
        system.start_service(CLONING, wait=False)
        system.until_log(
            CLONING, f"not admitted yet: {NOT_JUDGED}: The journal does not take", timeout_s=WAIT_S
        )
        shown = said(system, "query", "vol1")
        assert "Host 'h1' is up, and waits for its admission: " in shown
        assert NO_SPACE in shown
        assert "allowed nothing: its host does not answer" in shown
        recovery = said(system, "recover", "vol1")
        assert "vol1 host h1 is up, and not admitted yet" in recovery
        assert NO_SPACE in recovery
        assert recovery.count(" refused ") == len(Choice), "of what may be done, nothing"
        refused = system.cutover("adopt", "vol1", "--authority", "source", "--yes")
        assert "mend what that waits for" in refused.stderr

        system.stop_nats()
        system.start_nats()
        until_all_serve(system)
        settled = client.until(
            "vol1", lambda each: each["host_answers"] and not each["journal_pending"], timeout_s=WAIT_S
        )
        assert (settled["state"], settled["warnings"], settled["journal_wait"]) == ("setup", [], None)
        assert system.cutover("sync", "vol1").returncode == 0


def test_volume_that_was_set_up_meanwhile_is_told_of_until_it_is_recorded(
    own_system: Callable[..., System],
) -> None:
    """Cause: it was served, and every answer denied it, as long as the journal had not taken its first record."""
    system = own_system()
    pair = make_pair(system)
    with small_store(system) as store, monitored(system) as monitoring:
        filler = fill(store)
        assert not system.set_up("vol1", pair.source, pair.target)["journal"]
        watcher = Watcher(monitoring.url, "vol1")
        watcher.until(lambda: watcher.rows.get("vol1", {}).get("journal") == "pending", "it is on the page")
        metrics = monitoring.metrics()
        told = ("migration_recorded", "journal_sound", "journal_pending", "volume_open")
        assert [metrics[f'cutover_{each}{{migration="vol1"}}'] for each in told] == [0, 1, 1, 1]

        shown = system.cutover("list")
        assert shown.returncode == 1
        assert "has yet to take it" in shown.stdout
        assert NO_SPACE in " ".join(shown.stdout.split())
        for look in ("query", "recover", "sync"):
            refused = system.cutover(look, "vol1")
            assert "Host 'h1' has set up 'vol1', and the journal has yet to be told of it." in refused.stderr
        doctor = system.cutover("doctor", "--config", str(system.config)).stdout
        assert "failure journal         vol1: Host 'h1' has set up 'vol1'" in doctor

        assert watcher.rows["vol1"]["journal"] == "pending", (
            "it is told again and again, and is no less there for that"
        )

        filler.unlink()
        system.stop_nats()
        watcher.until(lambda: not watcher.around["link"]["is_connected"], "NATS is away")
        metrics = monitoring.metrics()
        assert not [each for each in told[1:] if f'cutover_{each}{{migration="vol1"}}' in metrics]
        system.start_nats()
        until_all_serve(system)
        watcher.until(lambda: watcher.rows["vol1"]["journal"] == "sound", "recorded")
        assert system.cutover("list").returncode == 0
