"""`cutover wait`: woken by what happens, and ended at once by what makes the state impossible."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.integration.console.scripted_control import ScriptedControl
from tests.support.statuses import fault
from tests.support.terminal import Ended, cutover

DONE, FAILED = 0, 1
Happening = Callable[[], Awaitable[None]]


async def while_waiting(control: ScriptedControl, state: str, happens: Happening, *options: str) -> Ended:
    """Wait for a state; once the waiter has asked for the status, something happens."""
    asked = asyncio.Event()

    async def seen(_: str) -> None:
        asked.set()

    control.then["query"] = seen
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(
            cutover("wait", "vol1", state, "--json", *options, server=control.bus.url)
        )
        await asked.wait()
        await happens()
    return waiting.result()


async def test_a_state_that_is_there_is_answered_at_once(control: ScriptedControl) -> None:
    control.has(state=State.SYNCING, attempt=1)
    ended = await cutover("wait", "vol1", "syncing", "--json", server=control.bus.url)
    assert (ended.status, ended.json["state"]) == (DONE, "syncing")


async def test_the_journal_wakes_it(control: ScriptedControl) -> None:
    control.has(state=State.SYNCING, attempt=1)
    ended = await while_waiting(
        control, "source-selected", lambda: control.becomes(state=State.SOURCE_SELECTED)
    )
    assert (ended.status, ended.json["state"]) == (DONE, "source-selected")


async def test_a_missed_event_only_costs_time(control: ScriptedControl) -> None:
    control.has(state=State.SYNCING, attempt=1)

    async def unnoticed() -> None:
        control.has(state=State.SOURCE_SELECTED, attempt=1)

    ended = await while_waiting(control, "source-selected", unnoticed)
    assert ended.status == DONE


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            {"state": State.SYNCING, "attempt": 1},
            {"state": State.SETUP, "faults": (fault(),)},
            "a target fault ended attempt 1",
        ),
        ({"state": State.SYNCING, "attempt": 1}, {"state": State.SETUP}, "attempt 1 has ended"),
        (
            {"state": State.SYNCING, "attempt": 1},
            {"state": State.SYNCING, "faults": (fault(Side.SOURCE, operation="flush"),)},
            "with a source fault",
        ),
        (
            {"state": State.SYNCING, "attempt": 1},
            {
                "state": State.SYNCING,
                "faults": (fault(Side.SOURCE, operation="read"),),
                "unreadable_regions": (3,),
            },
            "the source has regions that cannot be read",
        ),
        ({"state": State.SETUP}, {"state": State.SETUP, "attempt": 1}, "attempt 1 has ended"),
        ({"state": State.TARGET_SELECTED, "attempt": 1}, {"state": State.COMMITTED}, "from committed no way"),
    ],
)
async def test_it_ends_when_the_state_is_out_of_reach(
    control: ScriptedControl, before: dict[str, Any], after: dict[str, Any], words: str
) -> None:
    control.has(**before)
    began = time.monotonic()
    ended = await while_waiting(control, "source-selected", lambda: control.becomes(**after))
    assert time.monotonic() - began < 4, "not at once"
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "out-of-reach")
    assert words in ended.json["error"]["message"]


async def test_it_ends_when_the_migration_is_cleaned_up(control: ScriptedControl) -> None:
    control.has()

    async def cleaned_up() -> None:
        del control.existing["vol1"]
        await control.tell()

    ended = await while_waiting(control, "syncing", cleaned_up)
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "gone")


async def test_another_migration_of_the_name_is_another(control: ScriptedControl) -> None:
    control.has()

    async def replaced() -> None:
        control.existing["vol1"] = replace(control.existing["vol1"], uuid="another")
        await control.tell()

    ended = await while_waiting(control, "syncing", replaced)
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "gone")


async def test_it_sits_out_a_restart_of_the_services(control: ScriptedControl) -> None:
    control.has(state=State.SYNCING, attempt=1)

    async def away_and_back() -> None:
        control.refusals["query"] = Refusal(Code.SERVICE_AWAY, "Away.")
        await control.tell()
        await asyncio.sleep(0.5)
        del control.refusals["query"]
        await control.becomes(state=State.SOURCE_SELECTED)

    ended = await while_waiting(control, "source-selected", away_and_back)
    assert ended.status == DONE


async def test_it_gives_up_after_the_timeout(control: ScriptedControl) -> None:
    control.has(state=State.SYNCING, attempt=1)
    ended = await cutover("wait", "vol1", "committed", "--timeout", "0.3", "--json", server=control.bus.url)
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "timeout")
    assert "its state is syncing" in ended.json["error"]["message"]


async def test_an_unknown_migration_is_refused(control: ScriptedControl) -> None:
    ended = await cutover("wait", "vol1", "setup", "--json", server=control.bus.url)
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "unknown-migration")
