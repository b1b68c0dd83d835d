"""The state directory of a host, as it is found on a disk: what the service could not use is told, and nothing is left behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.console.doctor.facts import StateLook
from services.console.doctor.looking_at_machine import look_at_machine
from shared.config.model import GIB, Config, HostConfig, NbdConfig

NOBODY = 65534


def look(path: str | Path) -> StateLook:
    machine = look_at_machine(Config(host=HostConfig(name="h1", state_dir=str(path))))
    assert machine is not None
    return machine.state


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Without root's rights, which a file system asks for."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_one_that_the_service_will_make_is_well_and_nothing_is_left_behind(tmp_path: Path) -> None:
    found = look(tmp_path / "a/b")
    assert (found.is_there, found.trouble) == (False, "")
    assert list(tmp_path.iterdir()) == []


def test_the_room_of_one_that_will_be_made_is_that_of_the_file_system_it_will_be_on(tmp_path: Path) -> None:
    space = os.statvfs(tmp_path)
    found = look(tmp_path / "a/b")
    assert abs(found.free_bytes - space.f_bavail * space.f_frsize) < GIB
    assert found.free_bytes > 0
    assert look("/dev/shm/cutover-not-there/x").is_in_memory


@pytest.mark.parametrize(
    ("address", "trouble"),
    [
        ("tcp://192.0.2.1:10809", "cannot be listened on: Cannot assign requested address"),
        ("tcp://[2001:db8::1]:10809", "cannot be listened on: "),
        ("tcp://127.0.0.1:10809", ""),
        ("tcp://0.0.0.0:10809", ""),
    ],
)
def test_an_address_that_this_machine_does_not_have_is_told(
    tmp_path: Path, address: str, trouble: str
) -> None:
    host = HostConfig(name="h1", state_dir=str(tmp_path))
    machine = look_at_machine(Config(host=host, nbd=NbdConfig(listen=(address,))))
    assert machine is not None
    (found,) = machine.sockets
    assert found.trouble.startswith(trouble)
    assert bool(found.trouble) is bool(trouble)


@pytest.mark.parametrize("path", ["/proc/x", "/sys/x/y"])
def test_where_no_folder_can_be_made_is_told(path: str) -> None:
    assert "no folder can be made in /" in look(path).trouble


def test_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory" in look(tmp_path / "file/state").trouble


@pytest.mark.needs_root
def test_below_a_folder_that_may_not_be_written_is_told(short_path: Path) -> None:
    short_path.chmod(0o755)
    with as_somebody_else():
        found = look(short_path / "state")
    assert found.trouble == f"is not there, and no folder can be made in {short_path}: Permission denied"
