"""The state directory of a host, as it is found on a disk: what the service could not use is told, and nothing is left behind."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.console.doctor import looking_at_machine
from services.console.doctor.facts import MachineFacts, StateLook
from services.console.doctor.looking_at_machine import look_at_machine
from services.write_cloning.run_number import locked
from shared.config.model import GIB, Config, HostConfig, NbdConfig

NOBODY = 65534


def look_around(path: str | Path) -> MachineFacts:
    machine = look_at_machine(Config(host=HostConfig(name="h1", state_dir=str(path))))
    assert machine is not None
    return machine


def look(path: str | Path) -> StateLook:
    return look_around(path).state


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


def test_migrations_of_the_host_are_known_by_the_names_of_its_witnesses(tmp_path: Path) -> None:
    assert look(tmp_path).witnesses == ()
    (tmp_path / "witnesses").mkdir()
    for name in ("vol2.witness", "vol1.witness", "vol1.witness.new", "openings"):
        (tmp_path / "witnesses" / name).touch()
    assert look(tmp_path).witnesses == ("vol1", "vol2")


def test_a_host_that_runs_is_known_by_its_lock(tmp_path: Path) -> None:
    """Without taking it: a host that starts meanwhile would be turned away."""
    assert look(tmp_path).locked_by is None, "there is no lock yet"
    with locked(tmp_path):
        assert look(tmp_path).locked_by == os.getpid()
    assert look(tmp_path).locked_by is None, "the file stays, and nobody has it"
    with (tmp_path / "other").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert look(tmp_path).locked_by is None


@pytest.mark.parametrize(
    "limits", [("", str(GIB)), (str(GIB), ""), ("max", str(GIB)), (str(GIB), str(2**63 - 4096))]
)
def test_memory_is_what_either_version_of_control_groups_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: tuple[str, str]
) -> None:
    """Cause: only the second version was asked. Failing, a container with 1 GiB under the first has the whole machine."""
    files = (tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes")
    for file, limit in zip(files, limits, strict=True):
        if limit:
            file.write_text(f"{limit}\n")
    monkeypatch.setattr(looking_at_machine, "_CGROUP_LIMITS", files)
    assert look_around(tmp_path).memory_bytes == GIB


def test_without_a_limit_memory_is_what_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking_at_machine, "_CGROUP_LIMITS", (tmp_path / "nothing",))
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert look_around(tmp_path).memory_bytes == whole
