"""Devices that are not those that were set up: the volume is closed and says so, and opens once the right ones are back."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.system.devices import MIB, empty_file, run
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, HOST, System
from tests.support.loops import loop_node

Undo = Callable[[], None]


def exchange(one: Path, other: Path) -> None:
    aside = one.with_suffix(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def swapped(pair: Pair) -> Undo:
    exchange(pair.source, pair.target)
    return lambda: exchange(pair.source, pair.target)


def _replaced(path: Path) -> Undo:
    away = path.with_suffix(".away")
    path.rename(away)
    empty_file(path, away.stat().st_size)

    def undo() -> None:
        away.replace(path)

    return undo


def source_replaced(pair: Pair) -> Undo:
    return _replaced(pair.source)


def target_replaced(pair: Pair) -> Undo:
    return _replaced(pair.target)


def _resized(path: Path, by: int) -> Undo:
    size = path.stat().st_size
    tail = path.read_bytes()[size + by :] if by < 0 else b""
    os.truncate(path, size + by)

    def undo() -> None:
        os.truncate(path, size + by)
        with path.open("ab") as file:
            file.write(tail)
        os.truncate(path, size)

    return undo


def source_grown(pair: Pair) -> Undo:
    return _resized(pair.source, MIB)


def target_shrunk(pair: Pair) -> Undo:
    return _resized(pair.target, -MIB)


def recover(system: System) -> list[dict[str, str]]:
    choices: list[dict[str, str]] = json.loads(system.cutover("recover", "vol1", "--json").stdout)["choices"]
    return choices


@pytest.mark.parametrize(
    ("state", "attack", "side"),
    [
        ("source-selected", swapped, "source"),
        ("source-selected", source_replaced, "source"),
        ("source-selected", source_grown, "source"),
        ("source-selected", target_replaced, "target"),
        ("source-selected", target_shrunk, "target"),
        ("setup", swapped, "source"),
        ("committed", swapped, "target"),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_other_device_closes_the_volume_until_the_right_one_is_back(
    running: tuple[System, Pair], state: str, attack: Callable[[Pair], Undo], side: str
) -> None:
    system, pair = running
    bring_to(system, "vol1", state)
    assert system.stop_service(CLONING) == 0
    undo = attack(pair)
    contents = pair.source.read_bytes(), pair.target.read_bytes()
    system.start_service(CLONING)
    status = system.client.query("vol1")
    assert f"The {side} {getattr(pair, side)} is not the device that was set up" in status["host_error"]
    (choice,) = [each for each in recover(system) if each["choice"] == f"adopt-{side}"]
    assert choice["consent"] == "refused", "there is nothing to serve"
    assert (status["export_uri"], status["allowed"]) == (None, [])
    assert (pair.source.read_bytes(), pair.target.read_bytes()) == contents
    assert "is not the device that was set up" in system.cutover("recover", "vol1").stdout
    assert system.cutover("recover", "vol1", "--try-again").returncode == 1
    undo()
    done = system.cutover("recover", "vol1", "--try-again")
    assert (done.returncode, done.stderr) == (0, "")
    # A file that was cut and grown again has been written to, though it is the same as before.
    is_changed = attack in {source_grown, target_shrunk}
    faults = system.client.until_state("vol1", "setup" if is_changed else state)["faults"]
    assert [each["cause"] for each in faults] == ([f"{side}-changed"] if is_changed else [])


@pytest.mark.parametrize("side", ["source", "target"])
def test_file_that_was_overwritten_while_its_host_was_stopped_ends_the_attempt(
    running: tuple[System, Pair], side: str
) -> None:
    """A target that `cp` had written over was resumed as in sync, and committed."""
    system, pair = running
    client = system.client
    bring_to(system, "vol1", "target-selected")
    assert system.stop_service(CLONING) == 0
    with Path(getattr(pair, side)).open("r+b") as file:
        file.write(b"another's")
    system.start_service(CLONING)
    status = client.until_state("vol1", "setup")
    assert [(each["operation"], each["cause"]) for each in status["faults"]] == [("open", f"{side}-changed")]
    assert status["resync_bytes"] == pair.source.stat().st_size
    client.command("sync", "vol1")
    client.command("resume", "vol1")  # the way to `syncing` has paused it
    client.until_state("vol1", "source-selected")
    assert (pair.source.read_bytes()[:9] == b"another's") is (side == "source")
    assert pair.target.read_bytes() == pair.source.read_bytes()


@pytest.mark.needs_root
def test_loop_device_over_another_file_is_another_device(running: tuple[System, Pair]) -> None:
    """Cause: a loop device has no serial number, and its number is what the kernel had free.

    After a reboot two of them may stand on each other's files. Failing, the source's data is taken for the target's.
    """
    system, _pair = running
    pair = make_pair(system, "loops")
    other = empty_file(pair.target.with_suffix(".other"), pair.target.stat().st_size)
    with loop_node() as target:
        with _loop_at(target, pair.target):
            system.set_up("vol2", pair.source, target, overwrite_target=True)
            bring_to(system, "vol2", "source-selected")
            assert system.stop_service(CLONING) == 0
        with _loop_at(target, other):
            system.start_service(CLONING)
            status = system.client.query("vol2")
            assert f"The target {target} is not the device that was set up" in status["host_error"]
        with _loop_at(target, pair.target):
            assert system.cutover("recover", "vol2", "--try-again").returncode == 0
            system.clean_up("vol2")


def test_second_service_on_one_state_directory_is_refused_by_its_lock(running: tuple[System, Pair]) -> None:
    system, _pair = running
    system.start_service(CLONING, name="second", wait=False)
    assert system.until_gone("second") == 1
    assert "in use by another write cloning service" in system.log("second")
    assert system.client.query("vol1")["export_uri"]


def test_second_service_of_one_name_is_not_admitted_while_the_first_serves(
    running: tuple[System, Pair],
) -> None:
    """With a state directory of its own no lock keeps it away; startup does, and the devices' locks would."""
    system, _pair = running
    elsewhere = f"CUTOVER_HOST_STATE_DIR={system.folder / 'elsewhere/of/its/own'}"
    system.start_service(CLONING, name="twin", wait=False, under=("env", elsewhere))
    system.until_log("twin", f"of host '{HOST}' is not admitted", timeout_s=20)
    assert system.client.query("vol1")["export_uri"]
    system.kill_service("twin")


@contextmanager
def _loop_at(device: Path, backing: Path) -> Iterator[None]:
    """A loop device under a given number, as the kernel may number it after a reboot."""
    run("losetup", str(device), str(backing))
    try:
        yield
    finally:
        run("losetup", "--detach", str(device))
