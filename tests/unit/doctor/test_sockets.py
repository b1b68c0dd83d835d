"""Where volumes are to be exported, and whom the sockets are given to, as this machine has them."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.console.doctor import looking_at_machine
from services.console.doctor.facts import MachineFacts, SocketLook
from services.console.doctor.looking_at_machine import look_at_machine
from shared.config.model import Config, HostConfig, NbdConfig

NBD = b"NBDMAGICIHAVEOPT"


def look(state_dir: Path, **nbd: Any) -> MachineFacts:
    host = HostConfig(name="h1", state_dir=str(state_dir))
    machine = look_at_machine(Config(host=host, nbd=NbdConfig(**nbd)))
    assert machine is not None
    return machine


def look_at(state_dir: Path, address: str) -> SocketLook:
    (found,) = look(state_dir, listen=(address,)).sockets
    return found


@contextmanager
def greeting(words: bytes) -> Iterator[str]:
    """Somebody who greets one client with these words, and stays; the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10.0)
        served = threading.Event()

        def serve() -> None:
            with listening.accept()[0] as client:
                client.sendall(words)
                served.wait(10.0)

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            served.set()
            serving.join()


@pytest.mark.parametrize(
    ("words", "is_nbd"), [(NBD, True), (b'INFO {"server_id":"N"}\r\n', False), (b"", None)]
)
def test_who_listens_is_known_by_his_greeting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: bytes, is_nbd: bool | None
) -> None:
    """Failing, a NATS server where the host should listen is taken for the host."""
    if not words:
        monkeypatch.setattr(looking_at_machine, "_GREETING_TIMEOUT_S", 0.1)
    with greeting(words) as address:
        found = look_at(tmp_path, address)
    assert (found.is_taken, found.is_nbd) == (True, is_nbd)


def test_who_listens_is_left_without_a_reset(tmp_path: Path) -> None:
    """Failing, every look at a host that works leaves a line in its log: its client was lost."""
    ends: list[bytes | str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10.0)

        def serve() -> None:
            with listening.accept()[0] as client:
                client.sendall(NBD + bytes(2))
                client.settimeout(10.0)
                try:
                    ends.append(client.recv(1))
                except OSError as error:
                    ends.append(str(error))

        serving = threading.Thread(target=serve)
        serving.start()
        look_at(tmp_path, f"tcp://127.0.0.1:{listening.getsockname()[1]}")
        serving.join()
    assert ends == [b""]


def test_before_the_first_start_the_socket_in_the_folder_that_the_host_makes_is_well(
    short_path: Path,
) -> None:
    state_dir = short_path / "h3"
    (usual,) = look(state_dir).sockets
    assert (usual.trouble, usual.is_taken) == ("", False)
    assert look_at(state_dir, f"unix://{state_dir}/other.sock").trouble == ""
    assert "there is no folder" in look_at(state_dir, f"unix://{state_dir}/below/nbd.sock").trouble


def test_accounts_that_this_machine_does_not_have_are_told_by_key(short_path: Path) -> None:
    found = look(short_path, socket_owner="nosuchuser", socket_group="nosuchgroup")
    assert found.account_troubles == (
        "nbd.socket_owner: there is no user named 'nosuchuser'",
        "nbd.socket_group: there is no group named 'nosuchgroup'",
    )
    assert look(short_path, socket_owner="root", socket_group=0).account_troubles == ()
