"""A NATS server that acknowledges before it syncs: found out, refused by the name of the setting, or accepted and shown."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.bus.server import server_config, start_server
from tests.acceptance.system.background import Background
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.whole_system import READY_TIMEOUT_S, System

ACCEPTED = "CUTOVER_NATS_ACCEPT_UNSYNCED_JOURNAL=true"
RECORDERS = ("fault_recording", "state_control")


class UnsyncedSystem(System):
    """Its NATS server syncs when it likes."""

    def start_nats(self) -> None:
        folder = self.folder / "nats"
        text = server_config(folder).replace("sync_interval: always", 'sync_interval: "2m"')
        self._nats = self._background.run(start_server(folder, text=text), timeout_s=READY_TIMEOUT_S)


@pytest.fixture
def unsynced(background: Background) -> Iterator[tuple[System, Pair]]:
    folder = Path(tempfile.mkdtemp(prefix="cutover-", dir="/tmp"))
    system = UnsyncedSystem(folder, background)
    try:
        system.start()
        pair = make_pair(system)
        system.set_up("vol1", pair.source, pair.target)
        yield system, pair
    finally:
        system.close()
        shutil.rmtree(folder)


def restart_recorders(system: System, *environment: str) -> None:
    for service in RECORDERS:
        system.stop_service(service)
        system.start_service(service, under=("env", *environment))


def test_unsynced_server_is_refused_by_name_and_accepted_only_in_so_many_words(
    unsynced: tuple[System, Pair],
) -> None:
    system, _pair = unsynced
    refusal = system.client.refused("sync", "vol1")
    assert refusal.code == "journal-unsynced"
    assert "`sync_interval: always`" in refusal.message
    assert "accept_unsynced_journal = true" in refusal.message
    status = system.client.query("vol1")
    assert (status["state"], status["error_flag"]) == ("setup", False)
    assert any("`sync_interval: always`" in warning for warning in status["warnings"])
    assert system.client.words("vol1") == ["state setup"]

    # One that does not answer may be no better: nobody can tell.
    restart_recorders(system, "CUTOVER_NATS_MONITOR_URL=http://127.0.0.1:1")
    refusal = system.client.refused("sync", "vol1")
    assert refusal.code == "journal-unsynced"
    assert "the monitoring endpoint http://127.0.0.1:1 does not tell" in refusal.message
    assert system.client.words("vol1") == ["state setup"]

    restart_recorders(system, ACCEPTED)
    system.client.command("sync", "vol1")
    status = system.client.until_state("vol1", "source-selected")
    assert any("A power cut may take acknowledged records" in warning for warning in status["warnings"])
    shown = " ".join(system.cutover("query", "vol1").stdout.split())
    assert "A power cut may take acknowledged records with it" in shown
