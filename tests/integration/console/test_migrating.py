"""`cutover migrate` on services that run: the whole way, from wherever it stands."""

import asyncio
from typing import Any

from services.console.migrating import name_for, path_of
from shared.messages.status import ConnectionView, Outcome
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.integration.console.scripted_control import ScriptedControl
from tests.support.statuses import comparison, fault
from tests.support.terminal import CTRL_C, cutover, on_terminal, started

DONE, FAILED, USAGE = 0, 1, 2
CLIENT = ConnectionView(peer="pid 4711", connected_at="2026-01-31T12:00:00.000000Z")
JOB = ("migrate", "--source", "/data/source.img", "--target", "/data/target.img", "--name", "vol1")
THE_WAY = ["setup", "sync", "select-target", "commit", "cleanup"]


def copying_ends(control: ScriptedControl, **then: Any) -> None:
    """Let every copy end, well or otherwise."""

    async def end(name: str) -> None:
        await control.becomes(name, **({"state": State.SOURCE_SELECTED} | then))

    control.then["sync"] = end


def commands(control: ScriptedControl) -> list[str]:
    return [command for command, _, _ in control.asked]


async def test_script_goes_the_whole_way(control: ScriptedControl) -> None:
    copying_ends(control)
    ended = await cutover(*JOB, "--yes", server=control.bus.url)
    assert ended.status == DONE, ended
    assert commands(control) == THE_WAY
    assert "nbd+unix:///vol1" in ended.stdout
    assert "same filesystem UUIDs" in ended.stdout


async def test_both_sides_are_compared_where_the_commit_wants_it(control: ScriptedControl) -> None:
    """After a partial resync the commit is refused before that."""
    control.has(
        state=State.TARGET_SELECTED, attempt=2, needs_verify=True, verification=comparison(Outcome.EQUAL)
    )
    ended = await cutover(*JOB, "--yes", server=control.bus.url)
    assert ended.status == DONE, ended
    assert commands(control) == ["verify", "commit", "cleanup"]


async def test_json_is_the_end_and_nothing_else(control: ScriptedControl) -> None:
    copying_ends(control)
    ended = await cutover(*JOB, "--yes", "--json", server=control.bus.url)
    assert (ended.status, ended.json["state"]) == (DONE, "committed")


async def test_person_is_asked_at_every_turn_that_matters(control: ScriptedControl) -> None:
    copying_ends(control)
    async with on_terminal(*JOB, server=control.bus.url) as terminal:
        await terminal.until("press Enter")
        assert commands(control) == ["setup"]
        terminal.type("\n")
        await terminal.until("neither abort nor select-source")
        assert commands(control) == ["setup", "sync", "select-target"]
        terminal.type("y\n")
        await terminal.until("Clean up vol1 now?")
        assert commands(control) == ["setup", "sync", "select-target", "commit"]
        terminal.type("y\n")
        assert await terminal.end() == DONE
    assert commands(control) == THE_WAY


async def test_declined_commit_leaves_a_migration_to_go_on_with(control: ScriptedControl) -> None:
    control.has(state=State.TARGET_SELECTED, attempt=1)
    async with on_terminal(*JOB, server=control.bus.url) as terminal:
        await terminal.until("[y/N]")
        terminal.type("n\n")
        assert await terminal.end() == FAILED
    assert commands(control) == []


async def test_cleanup_waits_for_the_application_to_leave(control: ScriptedControl) -> None:
    control.has(state=State.COMMITTED, attempt=1, connections=(CLIENT,))
    async with started(*JOB, "--yes", server=control.bus.url) as process:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while b"Waiting for the clients" not in await process.stdout.readline():
                pass
            assert commands(control) == []
            await control.becomes(connections=())
            assert await process.wait() == DONE
    assert commands(control) == ["cleanup"]


async def test_person_may_try_cleanup_again(control: ScriptedControl) -> None:
    control.has(state=State.COMMITTED, attempt=1, connections=(CLIENT,))
    control.refusals["cleanup"] = Refusal(Code.CLIENTS_CONNECTED, "Connected: pid 4711.")
    async with on_terminal(*JOB, server=control.bus.url) as terminal:
        await terminal.until("Still connected: pid 4711")
        terminal.type("y\n")
        await terminal.until("clients-connected")
        control.refusals.clear()
        control.has(state=State.COMMITTED, attempt=1)
        terminal.type("y\n")
        assert await terminal.end() == DONE


async def test_attach_waits_for_the_first_client(control: ScriptedControl) -> None:
    copying_ends(control)
    async with started(*JOB, "--yes", "--attach", server=control.bus.url) as process:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while b"Waiting for a client" not in await process.stdout.readline():
                pass
            assert commands(control) == ["setup"]
            await control.becomes(connections=(CLIENT,))
            while b"Waiting for the clients to disconnect" not in await process.stdout.readline():
                pass
            await control.becomes(connections=())
            assert await process.wait() == DONE
    assert commands(control) == THE_WAY


async def test_it_goes_on_from_where_it_stands(control: ScriptedControl) -> None:
    control.has(state=State.SOURCE_SELECTED, attempt=1)
    ended = await cutover(*JOB, "--yes", server=control.bus.url)
    assert ended.status == DONE, ended
    assert commands(control) == ["select-target", "commit", "cleanup"]


async def test_a_name_of_other_devices_is_left_alone(control: ScriptedControl) -> None:
    control.has(source="/data/other.img")
    ended = await cutover(*JOB, "--yes", "--json", server=control.bus.url)
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "name-taken")
    assert commands(control) == []


async def test_fault_while_copying_is_told_with_what_to_do(control: ScriptedControl) -> None:
    copying_ends(control, state=State.SETUP, faults=(fault(),))
    ended = await cutover(*JOB, "--yes", server=control.bus.url)
    assert ended.status == FAILED
    assert "EIO" in ended.stdout
    assert "attempt-ended: Attempt 1 of vol1 has ended in setup" in ended.stderr
    assert "--name vol1 --yes --server nats://" in ended.stderr
    assert commands(control) == ["setup", "sync"]


async def test_ctrl_c_leaves_it_and_says_how_to_go_on(control: ScriptedControl) -> None:
    async with on_terminal(*JOB, server=control.bus.url) as terminal:
        await terminal.until("press Enter")
        terminal.type("\n")
        await terminal.until("sync: syncing")
        terminal.type(CTRL_C)
        assert await terminal.end() == FAILED
        shown = await terminal.until("--server nats://")
        assert "nothing is lost. Go on with: cutover migrate --source /data/source.img" in shown
    assert control.existing["vol1"].state is State.SYNCING


async def test_without_a_terminal_yes_is_needed_before_anything_begins(control: ScriptedControl) -> None:
    ended = await cutover(*JOB, server=control.bus.url)
    assert (ended.status, commands(control)) == (USAGE, [])


async def test_named_nats_that_is_away_is_not_replaced_by_another() -> None:
    ended = await cutover(*JOB, "--yes", "--json", server="nats://127.0.0.1:9")
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "journal-away")


def test_name_is_made_of_the_source() -> None:
    assert name_for("/dev/vg0/Data_1") == "data-1"
    assert name_for("file:///srv/My%20Disk.img") == "my-20disk"
    assert name_for("nbd://host/") == "volume"
    assert name_for("/data/disk.img") == "disk"


def test_path_of_a_device_here() -> None:
    assert path_of("file:///srv/My%20Disk.img") == "/srv/My Disk.img"
    assert path_of("/srv/../srv/x") == "/srv/x"
    assert path_of("nbd://host/x") is None


async def test_migration_of_other_remote_devices_is_not_taken_for_this_one(control: ScriptedControl) -> None:
    control.has(source="nbd://h/one", target="nbd://h/two")
    job = ("migrate", "--source", "nbd://h/three", "--target", "nbd://h/four", "--name", "vol1", "--yes")
    ended = await cutover(*job, server=control.bus.url)
    assert ended.status == FAILED
    assert "name-taken" in ended.stderr
    assert commands(control) == []
