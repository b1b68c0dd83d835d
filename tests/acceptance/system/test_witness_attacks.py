"""The witness under attack, after a clean stop in sync: the volume stays closed, says why, and nothing is served or written."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from services.write_cloning.storage import Directory
from services.write_cloning.witness import Witnesses
from tests.acceptance.system.devices import digest
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, System


@dataclass(slots=True)
class Scene:
    """The witness's file, and copies of it from earlier."""

    path: Path
    last_week: bytes = b""
    before_last_run: bytes = b""
    of_other: bytes = b""
    now: bytes = field(default=b"")


def lost(scene: Scene) -> None:
    scene.path.unlink()


def torn(scene: Scene) -> None:
    scene.path.write_bytes(scene.now[: len(scene.now) // 2])


def empty(scene: Scene) -> None:
    scene.path.write_bytes(b"")


def damaged(scene: Scene) -> None:
    scene.path.write_bytes(scene.now.replace(b'"attempt":1', b'"attempt":2'))


def from_last_week(scene: Scene) -> None:
    scene.path.write_bytes(scene.last_week)


def from_before_the_last_run(scene: Scene) -> None:
    scene.path.write_bytes(scene.before_last_run)


def of_another_migration(scene: Scene) -> None:
    scene.path.write_bytes(scene.of_other)


def of_another_host(scene: Scene) -> None:
    asyncio.run(_rewrite(scene.path, host="h9"))


def of_another_life(scene: Scene) -> None:
    asyncio.run(_rewrite(scene.path, uuid="00000000-0000-4000-8000-00000000000f"))


async def _rewrite(path: Path, **changes: object) -> None:
    """Another witness, under a seal that fits it."""
    witnesses = Witnesses(Directory(path.parent))
    (witness,) = (each for each in (await witnesses.read_all())[0] if each.migration == "vol1")
    await witnesses.write(replace(witness, **changes))  # type: ignore[arg-type]


def in_sync_after_two_runs(system: System) -> Scene:
    """In sync and stopped cleanly, with copies of the witness from before that."""
    scene = Scene(system.witness("vol1"))
    scene.last_week = scene.path.read_bytes()
    bring_to(system, "vol1", "source-selected")
    assert system.stop_service(CLONING) == 0
    scene.before_last_run = scene.path.read_bytes()
    system.start_service(CLONING)
    system.client.until_state("vol1", "source-selected")
    other = make_pair(system, "other")
    system.set_up("vol2", other.source, other.target)
    assert system.stop_service(CLONING) == 0
    scene.of_other = system.witness("vol2").read_bytes()
    scene.now = scene.path.read_bytes()
    return scene


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (lost, "its host has no witness of it"),
        (torn, "its witness cannot be believed"),
        (empty, "its witness cannot be believed"),
        (damaged, "its checksum does not match its content"),
        (from_last_week, "an old copy: of run"),
        (from_before_the_last_run, "an old copy: of run"),
        (of_another_migration, "it is of migration vol2"),
        (of_another_host, "its witness is of host 'h9'"),
        (of_another_life, "the journal has a migration of that name with the UUID"),
    ],
)
def test_witness_that_is_not_the_newest_keeps_the_volume_closed(
    running: tuple[System, Pair], attack: Callable[[Scene], None], why: str
) -> None:
    system, pair = running
    scene = in_sync_after_two_runs(system)
    attack(scene)
    contents, length = (digest(pair.source), digest(pair.target)), system.client.journal_length()
    system.start_service(CLONING)
    status = system.client.query("vol1")
    assert why in status["host_error"]
    assert "would admit it" in status["host_error"]
    assert (status["export_uri"], status["allowed"]) == (None, [])
    assert system.client.refused("select-target", "vol1").code == "not-admitted"
    assert system.client.query("vol2")["export_uri"], "the others are open"
    mine = [each for each in system.client.journal("vol1") if each.sequence > length]
    assert mine == []
    assert (digest(pair.source), digest(pair.target)) == contents

    assert system.stop_service(CLONING) == 0
    scene.path.write_bytes(scene.now)
    system.start_service(CLONING)
    assert system.client.until_state("vol1", "source-selected")["faults"] == []


def test_old_witness_of_a_run_that_was_killed_is_never_clean(running: tuple[System, Pair]) -> None:
    """Cause: of that run the journal held only startup's own flag, which counted as set in vain for a witness from before.

    Failing, the target is served as in sync without the writes that were under way at the kill.
    """
    system, pair = running
    bring_to(system, "vol1", "source-selected")
    assert system.stop_service(CLONING) == 0
    before = system.witness("vol1").read_bytes()
    system.start_service(CLONING)
    system.kill_service(CLONING)
    newest = system.witness("vol1").read_bytes()
    system.witness("vol1").write_bytes(before)
    in_source = digest(pair.source)
    system.start_service(CLONING)
    status = system.client.query("vol1")
    assert "an old copy: of run" in status["host_error"]
    assert status["export_uri"] is None
    assert system.stop_service(CLONING) == 0
    system.witness("vol1").write_bytes(newest)
    system.start_service(CLONING)
    status = system.client.until_state("vol1", "setup")
    assert [fault["cause"] for fault in status["faults"]] == ["unclean-shutdown"]
    assert digest(pair.source) == in_source


def test_state_directory_from_before_the_last_run_is_refused(running: tuple[System, Pair]) -> None:
    """Its run number counts to the one that the journal knows already."""
    system, _pair = running
    bring_to(system, "vol1", "source-selected")
    assert system.stop_service(CLONING) == 0
    names = ("run", "openings", "witnesses/vol1.witness")
    before = {name: (system.state_dir / name).read_bytes() for name in names}
    system.start_service(CLONING)
    system.kill_service(CLONING)
    newest = {name: (system.state_dir / name).read_bytes() for name in names}
    for name, content in before.items():
        (system.state_dir / name).write_bytes(content)
    system.start_service(CLONING, wait=False)
    assert system.until_gone(CLONING) == 2
    assert "Its state directory is a new one, or an old copy" in system.log(CLONING)
    for name, content in newest.items():
        (system.state_dir / name).write_bytes(content)
    system.start_service(CLONING)
    system.client.until_state("vol1", "setup")


def test_half_of_a_new_witness_beside_the_old_one_does_no_harm(running: tuple[System, Pair]) -> None:
    """The power went while a witness was written aside: the decision was not made."""
    system, _pair = running
    bring_to(system, "vol1", "source-selected")
    assert system.stop_service(CLONING) == 0
    aside = system.witness("vol1").with_name("vol1.witness.new")
    aside.write_bytes(system.witness("vol1").read_bytes()[:100])
    system.start_service(CLONING)
    assert system.client.query("vol1")["state"] == "source-selected"
