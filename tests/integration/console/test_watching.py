"""`cutover query --watch`: on a terminal, into a pipe, as JSON."""

import asyncio

import orjson

from shared.migration.states import State
from tests.integration.console.scripted_control import ScriptedControl
from tests.support.statuses import SIZE_BYTES, fault
from tests.support.terminal import CTRL_C, on_terminal, started


async def cleaned_up(control: ScriptedControl) -> None:
    del control.existing["vol1"]
    await control.tell()


async def test_on_a_terminal_one_line_is_drawn_over(control: ScriptedControl) -> None:
    control.has(
        state=State.SYNCING,
        attempt=1,
        synced_bytes=SIZE_BYTES // 2,
        remaining_bytes=SIZE_BYTES // 2,
        rate_bytes_per_s=float(1 << 20),
        eta_s=256.0,
    )
    async with on_terminal("query", "vol1", "--watch", server=control.bus.url) as terminal:
        shown = await terminal.until("50.0 %")
        assert "256 MiB left, 1 MiB/s, 4 min 16 s to go" in shown
        await control.becomes(state=State.SETUP, faults=(fault(),))
        await terminal.until("faults 1")
        await cleaned_up(control)
        await terminal.until("has been cleaned up")
        assert await terminal.end() == 0


async def test_ctrl_c_ends_watching(control: ScriptedControl) -> None:
    control.has()
    async with on_terminal("query", "vol1", "-w", server=control.bus.url) as terminal:
        await terminal.until("setup")
        terminal.type(CTRL_C)
        assert await terminal.end() == 130


async def test_in_a_pipe_a_line_is_a_change(control: ScriptedControl) -> None:
    control.has()
    async with started("query", "vol1", "--watch", server=control.bus.url) as process:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert b"setup" in await process.stdout.readline()
            await control.tell()  # nothing has changed
            await control.becomes(state=State.SYNCING, attempt=1)
            assert b"syncing" in await process.stdout.readline()
            await cleaned_up(control)
            assert await process.stdout.read() == b"vol1 has been cleaned up.\n"


async def test_json_is_a_status_each_time(control: ScriptedControl) -> None:
    control.has()
    async with started("query", "vol1", "--watch", "--json", server=control.bus.url) as process:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            first = orjson.loads(await process.stdout.readline())
            await control.becomes(state=State.SYNCING, attempt=1)
            while (now := orjson.loads(await process.stdout.readline()))["state"] == "setup":
                pass
            await cleaned_up(control)
            rest = (await process.stdout.read()).splitlines()
    assert (first["state"], now["state"]) == ("setup", "syncing")
    assert {orjson.loads(line)["name"] for line in rest} <= {"vol1"}
