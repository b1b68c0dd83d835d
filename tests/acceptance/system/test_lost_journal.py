"""What hosts serve counts, not what the journal holds: a journal that is lost, old or not to be read is told of everywhere.

Cause of all of these: who looked on asked the journal first, and a host only for what the journal knew. Failing, a NATS server
without its disk has no migration, no metric, no alert and no failure, while volumes are served and written to.
"""

import asyncio
import json
from collections.abc import Callable

import nats
import pytest

from tests.acceptance.system.devices import MIB
from tests.acceptance.system.journal_store import copy_store, lose_the_store, put_back, until_all_serve
from tests.acceptance.system.page_watcher import Json, Monitoring, Watcher, monitored
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.test_doctor import Lines, of, read, run_doctor
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, HOST, System

NEWER = "The journal holds a record of version 99; this program reads up to version 1."


@pytest.fixture
def system(own_system: Callable[..., System]) -> System:
    """With `vol1` in `syncing`."""
    system = own_system()
    pair = make_pair(system, "vol1", size_bytes=8 * MIB)
    system.set_up("vol1", pair.source, pair.target)
    bring_to(system, "vol1", "syncing")
    return system


def set_up_another(system: System) -> None:
    """`vol2`, in `setup`."""
    pair = make_pair(system, "vol2", size_bytes=8 * MIB)
    system.set_up("vol2", pair.source, pair.target)


def listed(system: System) -> tuple[int, dict[str, Json], str]:
    """Exit status, each by its name, and the table."""
    told = system.cutover("list", "--json")
    shown = system.cutover("list")
    assert shown.returncode == told.returncode
    return told.returncode, {each["name"]: each for each in json.loads(told.stdout)}, shown.stdout


def operators_doctor(system: System) -> tuple[int, Lines]:
    """As somebody runs it who is on no host's machine."""
    return read(run_doctor("--server", system.url, "--json"))


def sound(monitoring: Monitoring, name: str) -> float | None:
    return monitoring.metrics().get(f'cutover_journal_sound{{migration="{name}"}}')


def recorded(monitoring: Monitoring, name: str) -> float | None:
    return monitoring.metrics().get(f'cutover_migration_recorded{{migration="{name}"}}')


def test_store_that_is_lost_is_told_of_by_everyone_until_the_host_is_restarted(system: System) -> None:
    set_up_another(system)
    with monitored(system) as monitoring:
        watcher = Watcher(monitoring.url, "vol1")
        watcher.until(lambda: watcher.rows["vol1"]["state"] == "syncing", "syncing")
        lose_the_store(system)

        status, by_name, table = listed(system)
        assert status == 1
        assert {name: each["journal_condition"] for name, each in by_name.items()} == {
            "vol1": "unknown",
            "vol2": "unknown",
        }
        assert (by_name["vol1"]["state"], by_name["vol1"]["source_of_status"]) == ("syncing", "host")
        assert "does not know it" in table
        assert "Restart the host to have the journal repaired" in " ".join(table.split())
        assert "No migration" not in table

        code, lines = operators_doctor(system)
        assert code == 1
        failures = of(lines, "journal", "failure")
        assert [each.partition(":")[0] for each in failures] == ["vol1", "vol2"]
        assert all("does not know" in each for each in failures)
        assert of(lines, "volumes", "ok") == ["2 open"]
        assert all(
            f"restart host {HOST}" in line["todo"]
            for line in lines
            if (line["check"], line["outcome"]) == ("journal", "failure")
        )

        for name in ("vol1", "vol2"):
            watcher.until(lambda name=name: watcher.rows[name]["journal"] == "unknown", name)  # type: ignore[misc]
            watcher.until(
                lambda name=name: (sound(monitoring, name), recorded(monitoring, name)) == (0, 0),  # type: ignore[misc]
                "metrics",
            )
            assert monitoring.metrics()[f'cutover_volume_open{{migration="{name}"}}'] == 1
        assert (
            monitoring.metrics()[
                'cutover_migration_state{cutover_migration_state="syncing",migration="vol1"}'
            ]
            == 1
        )
        watcher.until(lambda: "does not know" in watcher.detail["warnings"][0], "the reason")

        assert system.stop_service(CLONING) == 1
        system.start_service(CLONING)
        watcher.until(lambda: watcher.rows["vol1"]["journal"] == "sound", "repaired")
        watcher.until(lambda: watcher.rows["vol2"]["journal"] == "sound", "repaired")
        # Once the host has been heard: until then nobody can say so.
        watcher.until(lambda: (sound(monitoring, "vol1"), recorded(monitoring, "vol1")) == (1, 1), "metrics")
        assert listed(system)[0] == 0


def test_older_journal_is_told_of_what_it_lacks_and_what_came_after_it(system: System) -> None:
    system.client.command("abort", "vol1")
    system.client.until("vol1", lambda each: not each["error_flag"])
    backup = copy_store(system, "last-week")
    until_all_serve(system)
    set_up_another(system)
    bring_to(system, "vol1", "source-selected")
    with monitored(system) as monitoring:
        watcher = Watcher(monitoring.url, "vol2")
        put_back(system, backup)
        until_all_serve(system)

        status, by_name, table = listed(system)
        assert status == 1
        told = {name: each["journal_condition"] for name, each in by_name.items()}
        assert told == {"vol1": "gone-back", "vol2": "unknown"}
        assert "has gone back" in table
        code, lines = operators_doctor(system)
        assert code == 1
        first, second = of(lines, "journal", "failure")
        assert first.startswith("vol1: The journal of 'vol1' has gone back")
        assert second.startswith("vol2: The journal does not know 'vol2'")
        assert of(lines, "volumes", "warning") == []

        assert system.client.query("vol1")["allowed"] == ["abort"], "all else is refused"
        assert system.client.refused("select-target", "vol1").code == "journal-unsound"
        assert "all else is refused: the journal has gone back" in system.cutover("query", "vol1").stdout

        watcher.until(lambda: watcher.rows["vol2"]["journal"] == "unknown", "vol2 is unknown")
        watcher.until(lambda: watcher.rows["vol1"]["journal"] == "gone-back", "vol1 has gone back")
        assert (sound(monitoring, "vol1"), recorded(monitoring, "vol1")) == (0, 1)
        assert (sound(monitoring, "vol2"), recorded(monitoring, "vol2")) == (0, 0)


def append_newer(system: System, name: str) -> None:
    """What a service does that was upgraded too early."""

    async def append() -> None:
        client = await nats.connect(system.url)
        record = system.client.journal(name)[-1].record | {"version": 99}
        await client.jetstream().publish(f"cutover.journal.{name}.state", json.dumps(record).encode())
        await client.close()

    asyncio.run(append())


def test_volume_that_its_host_keeps_closed_is_closed_whatever_the_journal_is_like(system: System) -> None:
    set_up_another(system)
    with monitored(system) as monitoring:
        watcher = Watcher(monitoring.url, "vol1")
        watcher.until(lambda: watcher.rows["vol1"]["state"] == "syncing", "syncing")
        append_newer(system, "vol1")
        status, by_name, _table = listed(system)
        assert status == 1
        assert (by_name["vol1"]["journal_condition"], by_name["vol1"]["host_error"]) == (
            "newer-version",
            None,
        )
        assert by_name["vol2"]["journal_condition"] == "sound"

        system.stop_service(CLONING)
        system.start_service(CLONING)
        status, by_name, table = listed(system)
        assert status == 1
        assert (by_name["vol1"]["host_error"], by_name["vol1"]["export_uri"]) == (NEWER, None)
        (line,) = [each for each in table.splitlines() if each.startswith("vol1 ")]
        assert "closed" in line
        assert NEWER in " ".join(table.split())

        code, lines = operators_doctor(system)
        assert code == 1
        assert of(lines, "volumes", "failure") == [f"vol1 is closed: {NEWER}"]
        assert of(lines, "volumes", "ok") == ["1 open"]
        assert of(lines, "journal", "failure") == [f"vol1: {NEWER}"]

        watcher.until(lambda: watcher.rows["vol1"]["trouble"] == NEWER, "it is closed")
        metrics = monitoring.metrics()
        assert metrics['cutover_volume_open{migration="vol1"}'] == 0
        assert metrics['cutover_volume_open{migration="vol2"}'] == 1
        assert sound(monitoring, "vol1") == 0
        assert 'cutover_connections{migration="vol1"}' not in metrics


def test_closed_volume_is_called_closed_in_the_list(system: System) -> None:
    """Cause: `list` showed the journal's word of it, and nothing of its host's."""
    set_up_another(system)
    assert system.stop_service(CLONING) == 0
    (source,) = system.data.glob("vol2-*/source.img")
    moved = source.rename(source.with_suffix(".moved"))
    system.start_service(CLONING)
    status, by_name, table = listed(system)
    assert status == 0, "that the volume is closed says nothing against the list"
    (line,) = [each for each in table.splitlines() if each.startswith("vol2 ")]
    assert "closed" in line
    assert by_name["vol2"]["host_error"] in " ".join(table.split())
    moved.rename(source)
