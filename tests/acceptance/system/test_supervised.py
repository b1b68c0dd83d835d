"""A host under a supervisor: started by a client at an inherited socket, ready when it serves, and stopping when told."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.system.devices import MIB
from tests.acceptance.system.whole_system import CLONING, System

PATIENCE_S = 30.0


class Manager:
    """What systemd does with the socket that NOTIFY_SOCKET names: it reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE_S)
        self.socket.bind(str(path))

    def until(self, words: str) -> list[str]:
        """What was told up to something that has these words; in order."""
        told: list[str] = []
        while not told or words not in told[-1]:
            told.append(self.socket.recv(4096).decode())
        return told


@pytest.fixture
def manager(short_path: Path) -> Iterator[Manager]:
    made = Manager(short_path / "notify")
    yield made
    made.socket.close()


def test_a_host_is_ready_when_it_serves_and_its_socket_was_there_before(
    running: tuple[System, object], short_path: Path, manager: Manager
) -> None:
    """`systemd-socket-activate` listens, and starts the host when the first client comes; that one waits, and is served.

    There are two sockets: both are named, and clients are told of the first.
    """
    system, _ = running
    assert system.stop_service(CLONING) == 0
    path, other = short_path / "nbd.sock", short_path / "other.sock"
    listened = (f"--listen={path}", f"--listen={other}")
    under = ("systemd-socket-activate", *listened, f"--setenv=NOTIFY_SOCKET={manager.path}")
    system.start_service(CLONING, under=under, wait=False)
    end = time.monotonic() + PATIENCE_S
    while not path.exists():  # who listens tells nobody
        assert time.monotonic() < end, system.log(CLONING)
    uri = f"nbd+unix:///vol1?socket={path}"
    size = subprocess.run(
        ["nbdinfo", "--size", uri], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert size.stdout == f"{8 * MIB}\n"
    assert manager.until("READY=1") == [f"READY=1\nSTATUS=Host h1 serves {path} and {other}."]
    assert system.client.query("vol1")["export_uri"] == uri

    assert system.stop_service(CLONING) == 0
    assert manager.until("STOPPING=1") == ["STOPPING=1\nSTATUS=It stops on SIGTERM."]
    assert path.exists(), "the socket is the supervisor's, and so is its file"


def test_a_host_without_nats_says_what_it_waits_for_and_is_ready_once_it_is_there(
    running: tuple[System, object], short_path: Path, manager: Manager
) -> None:
    system, _ = running
    health = short_path / "health.sock"
    assert system.stop_service(CLONING) == 0
    system.stop_nats()
    variables = (f"NOTIFY_SOCKET={manager.path}", f"CUTOVER_HEALTH_SOCKET={health}")
    system.start_service(CLONING, under=("env", *variables), wait=False)
    assert manager.until("STATUS=Waiting for NATS: ")[-1].startswith("STATUS=")
    assert checked(health) == 1
    system.start_nats()
    told = manager.until("READY=1")
    assert all(each.startswith("STATUS=") for each in told[:-1]), told
    assert checked(health) == 0


def checked(health: Path) -> int:
    command = [sys.executable, "-m", "shared.supervision.check", str(health)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, timeout=PATIENCE_S, check=False).returncode
