"""`cutover verify` and `commit --verify` as processes: what they ask for, what they show, how they end."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shared.messages.control import CommitRequest
from shared.messages.status import Outcome
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.integration.console.scripted_control import ScriptedControl, without_operation
from tests.support.statuses import SIZE_BYTES, comparison
from tests.support.terminal import CTRL_C, cutover, on_terminal

DONE, FAILED, USAGE = 0, 1, 2
ENDED: dict[str, Any] = {"compared_bytes": SIZE_BYTES, "remaining_bytes": 0}


def comparing(control: ScriptedControl, **fields: Any) -> None:
    """A migration whose comparison is under way."""
    usual: dict[str, Any] = {"state": State.TARGET_SELECTED, "attempt": 1, "verification": comparison()}
    control.has(**(usual | fields))


def ends(control: ScriptedControl, outcome: Outcome, **fields: Any) -> Callable[[str], Awaitable[None]]:
    """Let the comparison end soon after it was begun."""

    async def end(name: str) -> None:
        await control.becomes(name, verification=comparison(outcome, **(ENDED | fields)))

    return end


def commands(control: ScriptedControl) -> list[str]:
    return [command for command, _, _ in control.asked]


async def test_equal_sides_are_exit_status_0(control: ScriptedControl) -> None:
    comparing(control)
    control.then["verify"] = ends(control, Outcome.EQUAL)
    ended = await cutover("verify", "vol1", server=control.bus.url)
    assert ended.status == DONE, ended
    assert ended.stdout.splitlines()[-1] == "vol1: source and target are equal (512 MiB compared)"


async def test_progress_is_told_line_by_line_where_nobody_watches(control: ScriptedControl) -> None:
    comparing(control)

    async def go_on(name: str) -> None:
        control.then["query"] = ends(control, Outcome.EQUAL)
        await control.tell(name)

    control.then["verify"] = go_on
    ended = await cutover("verify", "vol1", server=control.bus.url)
    assert ended.status == DONE, ended
    assert "comparing ━━━━━━────" in " ".join(ended.stdout.split())
    assert "48 MiB/s, 8 s to go" in ended.stdout


async def test_json_is_the_status_at_the_end_and_nothing_else(control: ScriptedControl) -> None:
    comparing(control)
    control.then["verify"] = ends(control, Outcome.EQUAL)
    ended = await cutover("verify", "vol1", "--json", server=control.bus.url)
    assert ended.status == DONE
    assert ended.json["verification"]["outcome"] == "equal"


@pytest.mark.parametrize("outcome", [Outcome.DIFFERENT, Outcome.INCOMPLETE])
async def test_anything_else_is_exit_status_1_with_the_reason(
    control: ScriptedControl, outcome: Outcome
) -> None:
    comparing(control)
    control.then["verify"] = ends(control, outcome, detail="4096 bytes at 8192 differ")
    ended = await cutover("verify", "vol1", "--json", server=control.bus.url)
    assert ended.status == FAILED
    assert ended.json["error"]["code"] == outcome.value
    assert "4096 bytes at 8192 differ" in ended.json["error"]["message"]


@pytest.mark.parametrize("now", [None, comparison(Outcome.EQUAL, id="of-another")])
async def test_comparison_that_was_lost_is_not_called_equal(control: ScriptedControl, now: Any) -> None:
    comparing(control)

    async def restart(name: str) -> None:
        await control.becomes(name, verification=now)

    control.then["verify"] = restart
    ended = await cutover("verify", "vol1", "--json", server=control.bus.url)
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "incomplete")


@pytest.mark.parametrize("now", [None, comparison(id="of-another")])
async def test_comparison_that_was_followed_by_something_else_has_left_its_word(
    control: ScriptedControl, now: Any
) -> None:
    """The host was stopped, or somebody began the next comparison, a moment after this one had found all equal."""
    comparing(control)

    async def go_on(name: str) -> None:
        await control.becomes(name, verification=now, verified_at="2026-01-31T12:00:05.000000Z")

    control.then["verify"] = go_on
    ended = await cutover("verify", "vol1", server=control.bus.url)
    assert ended.status == DONE, ended


async def test_word_of_an_earlier_comparison_does_not_count(control: ScriptedControl) -> None:
    comparing(control, verified_at="2026-01-31T11:00:00.000000Z")

    async def restart(name: str) -> None:
        await control.becomes(name, verification=None, verified_at="2026-01-31T11:00:00.000000Z")

    control.then["verify"] = restart
    ended = await cutover("verify", "vol1", server=control.bus.url)
    assert ended.status == FAILED
    assert "not known" in ended.stderr


async def test_host_that_is_away_is_waited_for(control: ScriptedControl) -> None:
    comparing(control)

    async def go_away(name: str) -> None:
        control.then["query"] = ends(control, Outcome.EQUAL)
        await control.becomes(name, verification=None, host_answers=False)

    control.then["verify"] = go_away
    ended = await cutover("verify", "vol1", server=control.bus.url)
    assert ended.status == DONE, ended
    assert "the host does not answer" in ended.stdout


async def test_interruption_leaves_it_going_and_says_so(control: ScriptedControl) -> None:
    comparing(control)
    async with on_terminal("verify", "vol1", server=control.bus.url) as terminal:
        await terminal.until("comparing")
        terminal.type(CTRL_C)
        await terminal.until("goes on at its host")
        assert await terminal.end() == FAILED


async def test_commit_with_verify_compares_first(control: ScriptedControl) -> None:
    comparing(control)
    control.then["verify"] = ends(control, Outcome.EQUAL)
    ended = await cutover("commit", "vol1", "--verify", "--yes", server=control.bus.url)
    assert ended.status == DONE, ended
    assert commands(control) == ["verify", "commit"]
    assert [without_operation(each) for each in control.requests("commit")] == [CommitRequest(verified=True)]


async def test_question_tells_of_a_comparison_that_was_completed(control: ScriptedControl) -> None:
    comparing(control, verification=None, verified_at="2026-01-31T12:00:05.000000Z")
    async with on_terminal("commit", "vol1", server=control.bus.url) as terminal:
        await terminal.until("last found equal everywhere at 2026-01-31T12:00:05.000000Z")
        terminal.type("n\n")
        assert await terminal.end() == FAILED


@pytest.mark.parametrize("outcome", [Outcome.DIFFERENT, Outcome.INCOMPLETE])
async def test_commit_is_not_asked_for_when_something_differs(
    control: ScriptedControl, outcome: Outcome
) -> None:
    comparing(control)
    control.then["verify"] = ends(control, outcome, detail="said why")
    ended = await cutover("commit", "vol1", "--verify", "--yes", server=control.bus.url)
    assert ended.status == FAILED
    assert "said why" in ended.stderr
    assert commands(control) == ["verify"]


async def test_commit_that_will_be_refused_compares_nothing(control: ScriptedControl) -> None:
    comparing(control, state=State.SOURCE_SELECTED)
    ended = await cutover("commit", "vol1", "--verify", "--yes", server=control.bus.url)
    assert ended.status == FAILED
    assert "not-allowed: commit is refused in state source-selected" in ended.stderr
    assert commands(control) == []


@pytest.mark.parametrize(("flags", "verified"), [((), None), (("--without-verify",), False)])
async def test_plain_commit_says_whether_a_verify_is_wanted(
    control: ScriptedControl, flags: tuple[str, ...], verified: bool | None
) -> None:
    comparing(control)
    ended = await cutover("commit", "vol1", "--yes", *flags, server=control.bus.url)
    assert ended.status == DONE, ended
    assert [without_operation(each) for each in control.requests("commit")] == [
        CommitRequest(verified=verified)
    ]


async def test_commit_cannot_be_told_both(control: ScriptedControl) -> None:
    ended = await cutover("commit", "vol1", "--verify", "--without-verify", "--yes", server=control.bus.url)
    assert ended.status == USAGE
    assert "not both" in ended.stderr


async def test_refusal_names_the_flag_of_the_command_line(control: ScriptedControl) -> None:
    comparing(control)
    message = "commit of vol1 is refused: Verify first, or say that none is wanted (verified: false)."
    control.refusals["commit"] = Refusal(Code.NOT_VERIFIED, message)
    ended = await cutover("commit", "vol1", "--yes", server=control.bus.url)
    assert ended.status == FAILED
    assert "(--without-verify)" in ended.stderr
