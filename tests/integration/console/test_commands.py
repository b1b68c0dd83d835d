"""The operator's commands, each as a process against a real NATS server: requests, answers, exit statuses."""

import asyncio
import time

import orjson
import pytest

from shared.messages.control import CleanupRequest, PlainRequest, SetupRequest, ThrottleRequest
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.integration.console.scripted_control import ScriptedControl, without_operation
from tests.support.statuses import fault
from tests.support.terminal import CTRL_C, cutover, on_terminal, started

DONE, FAILED, USAGE = 0, 1, 2


@pytest.mark.parametrize("command", ["sync", "pause", "resume", "select-target", "select-source"])
async def test_plain_command_is_the_request_that_anyone_can_send(
    control: ScriptedControl, command: str
) -> None:
    control.has()
    ended = await cutover(command, "vol1", "--json", server=control.bus.url)
    assert ended.status == DONE, ended
    assert ended.json["name"] == "vol1"
    assert [(asked, name, without_operation(request)) for asked, name, request in control.asked] == [
        (command, "vol1", PlainRequest())
    ]


async def test_setup_sends_what_was_asked_for_and_tells_the_export(control: ScriptedControl) -> None:
    ended = await cutover(
        "setup", "vol1", "--source", "/a", "--target", "/b", "--host", "h1", "--overwrite-target",
        server=control.bus.url,
    )  # fmt: skip
    assert ended.status == DONE, ended
    assert "nbd+unix:///vol1" in ended.stdout
    assert [without_operation(request) for request in control.requests("setup")] == [
        SetupRequest(source="/a", target="/b", host="h1", overwrite_target=True)
    ]


@pytest.mark.parametrize(("rate", "bytes_per_s"), [("50MiB/s", 50 << 20), ("off", None)])
async def test_throttle_sends_bytes_per_second(
    control: ScriptedControl, rate: str, bytes_per_s: int | None
) -> None:
    control.has()
    ended = await cutover("throttle", "vol1", rate, server=control.bus.url)
    assert ended.status == DONE, ended
    sent = [without_operation(request) for request in control.requests("throttle")]
    assert sent == [ThrottleRequest(bytes_per_s=bytes_per_s)]


async def test_each_command_has_an_operation_of_its_own(control: ScriptedControl) -> None:
    control.has()
    for _ in range(2):
        await cutover("pause", "vol1", server=control.bus.url)
    first, second = (getattr(request, "operation_id") for request in control.requests("pause"))  # noqa: B009
    assert first
    assert first != second


async def test_query_is_one_flat_object(control: ScriptedControl) -> None:
    control.has(state=State.SYNCING, attempt=1)
    ended = await cutover("query", "vol1", "--json", server=control.bus.url)
    wanted = {
        "name", "uuid", "state", "attempt", "error_flag", "authority", "faults", "size_bytes", "synced_bytes",
        "rate_bytes_per_s", "eta_s", "paused", "throttle_bytes_per_s", "host", "source", "target", "export_uri",
        "connections", "io_engine",
    }  # fmt: skip
    assert wanted <= set(ended.json)
    assert ended.json["state"] == "syncing"


async def test_list_ends_with_a_failure_where_an_application_gets_errors(control: ScriptedControl) -> None:
    """The volume is open, and the journal sound: a script that looks at the exit status was told that all is well."""
    control.has(application_trouble="vol1: the application gets errors: source read at 0: EIO.")
    ended = await cutover("list", server=control.bus.url)
    assert ended.status == 1
    assert "vol1: the application gets errors" in ended.stdout


async def test_list_and_faults_are_arrays(control: ScriptedControl) -> None:
    control.has("vol1", faults=(fault(),))
    control.has("vol2")
    listed, every, one = await asyncio.gather(
        cutover("list", "--json", server=control.bus.url),
        cutover("faults", "--json", server=control.bus.url),
        cutover("faults", "vol2", "--json", server=control.bus.url),
    )
    assert [each["name"] for each in listed.json] == ["vol1", "vol2"]
    assert [each["cause"] for each in every.json] == ["EIO"]
    assert one.json == []


async def test_refusal_keeps_code_sentence_and_what_is_allowed(control: ScriptedControl) -> None:
    control.has()
    control.refusals["sync"] = Refusal(
        Code.NOT_ALLOWED, "sync is refused in state syncing.", ("abort", "pause")
    )
    for_programs, for_people = await asyncio.gather(
        cutover("sync", "vol1", "--json", server=control.bus.url),
        cutover("sync", "vol1", server=control.bus.url),
    )
    assert for_programs.status == for_people.status == FAILED
    assert for_programs.json == {
        "error": {
            "code": "not-allowed",
            "message": "sync is refused in state syncing.",
            "allowed": ["abort", "pause"],
        }
    }
    assert for_people.stdout == ""
    assert for_people.stderr == "not-allowed: sync is refused in state syncing.\n"


async def test_sync_whose_attempt_has_failed_before_the_answer_fails_and_names_the_fault(
    control: ScriptedControl,
) -> None:
    """A target that fails at the first write: state control answers with the state that is then, `setup`."""
    control.has(faults=(fault(),))
    control.replies["sync"] = State.SETUP
    for_people = await cutover("sync", "vol1", server=control.bus.url)
    assert for_people.status == FAILED
    assert for_people.stdout == ""
    assert "attempt-ended: Attempt 1 of vol1" in for_people.stderr
    assert "target write, EIO" in for_people.stderr
    assert "`cutover faults vol1`" in for_people.stderr
    control.has(faults=(fault(),))
    for_programs = await cutover("sync", "vol1", "--json", server=control.bus.url)
    assert for_programs.status == FAILED
    error = for_programs.json["error"]
    assert (error["code"], error["attempt"]) == ("attempt-ended", 1)
    assert "EIO" in error["message"]


async def test_refusal_of_a_target_in_use_names_the_flag(control: ScriptedControl) -> None:
    control.refusals["setup"] = Refusal(Code.TARGET_IN_USE, "It carries ext4; say so (overwrite_target).")
    line = ("setup", "vol1", "--source", "/a", "--target", "/b")
    for_programs, for_people = await asyncio.gather(
        cutover(*line, "--json", server=control.bus.url), cutover(*line, server=control.bus.url)
    )
    assert for_programs.json["error"]["message"] == "It carries ext4; say so (--overwrite-target)."
    assert for_people.stderr == "target-in-use: It carries ext4; say so (--overwrite-target).\n"


async def test_unknown_migration_fails(control: ScriptedControl) -> None:
    ended = await cutover("query", "vol1", "--json", server=control.bus.url)
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "unknown-migration")


async def test_no_services_is_said_at_once(server: str) -> None:
    began = time.monotonic()
    ended = await cutover("commit", "vol1", "--yes", "--json", server=server)
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "service-away")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("command", [("list",), ("sync", "vol1"), ("events",), ("wait", "vol1", "setup")])
async def test_no_nats_is_said_within_five_seconds(command: tuple[str, ...]) -> None:
    began = time.monotonic()
    ended = await cutover(*command, "--json", server="nats://127.0.0.1:9")
    assert time.monotonic() - began < 5
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "journal-away")
    assert "nats://127.0.0.1:9" in ended.json["error"]["message"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("sync",), "Missing argument"),
        (("nonsense",), "No such command"),
        (("setup", "vol1", "--source", "/a"), "--target"),
        (("sync", "Vol_1"), "lower-case letters"),
        (("throttle", "vol1", "50"), "no unit"),
        (("wait", "vol1", "ready"), "source-selected"),
        (("wait", "vol1", "setup", "--timeout", "soon"), "timeout"),
        (("commit", "vol1", "--no-such-option"), "No such option"),
    ],
)
async def test_wrong_usage_ends_with_two(line: tuple[str, ...], words: str) -> None:
    for_programs, for_people = await asyncio.gather(
        cutover(*line, "--json", server="nats://127.0.0.1:9"), cutover(*line, server="nats://127.0.0.1:9")
    )
    assert for_programs.status == for_people.status == USAGE
    assert for_programs.json["error"]["code"] == "usage"
    assert words in for_programs.json["error"]["message"]
    assert for_people.stderr.startswith("usage: ")
    assert "\\n" not in for_people.stderr
    assert words in for_people.stderr


async def test_options_count_before_and_behind_the_command(control: ScriptedControl) -> None:
    ended = await cutover("--json", "--server", control.bus.url, "list")
    assert ended.json == []


@pytest.mark.parametrize(
    ("command", "state"),
    [("commit", State.TARGET_SELECTED), ("abort", State.SYNCING), ("cleanup", State.COMMITTED)],
)
async def test_without_a_terminal_yes_is_needed(control: ScriptedControl, command: str, state: State) -> None:
    control.has(state=state, attempt=1)
    refused = await cutover(command, "vol1", server=control.bus.url, typed=b"y\n")
    assert refused.status == USAGE
    assert "--yes" in refused.stderr
    assert control.asked == []
    done = await cutover(command, "vol1", "--yes", server=control.bus.url)
    assert done.status == DONE, done
    assert [asked for asked, _, _ in control.asked] == [command]


async def test_commit_asks_what_cannot_be_undone_and_tells_what_to_do_after(control: ScriptedControl) -> None:
    control.has(state=State.TARGET_SELECTED, attempt=1)
    async with on_terminal("commit", "vol1", server=control.bus.url) as terminal:
        shown = await terminal.until("[y/N]")
        assert "neither abort nor select-source can bring it back" in shown
        assert control.asked == []
        terminal.type("y\n")
        assert await terminal.end() == DONE
        shown = await terminal.until("nothing mounts it")
        assert "same filesystem UUIDs" in shown
        assert "/data/source.img" in shown
    assert [asked for asked, _, _ in control.asked] == ["commit"]


@pytest.mark.parametrize("answer", ["n\n", "\n", "yess\n"])
async def test_anything_but_yes_leaves_it(control: ScriptedControl, answer: str) -> None:
    control.has(state=State.SYNCING, attempt=1)
    async with on_terminal("abort", "vol1", server=control.bus.url) as terminal:
        await terminal.until("[y/N]")
        terminal.type(answer)
        assert await terminal.end() == FAILED
        await terminal.until("declined")
    assert control.asked == []


@pytest.mark.parametrize(
    ("command", "state"),
    [("commit", State.TARGET_SELECTED), ("abort", State.SYNCING), ("cleanup", State.COMMITTED)],
)
async def test_ctrl_c_at_the_question_does_nothing_and_says_so(
    control: ScriptedControl, command: str, state: State
) -> None:
    control.has(state=state, attempt=1)
    async with on_terminal(command, "vol1", server=control.bus.url) as terminal:
        await terminal.until("[y/N]")
        terminal.type(CTRL_C)
        assert await terminal.end() == FAILED
        await terminal.until(f"interrupted: {command} was not asked for; nothing was done.")
    assert control.asked == []


async def test_a_command_that_will_be_refused_is_not_asked_about(control: ScriptedControl) -> None:
    control.has(state=State.SYNCING, attempt=1)
    control.refusals["commit"] = Refusal(Code.NOT_ALLOWED, "commit is refused in state syncing.")
    async with on_terminal("commit", "vol1", server=control.bus.url) as terminal:
        assert await terminal.end() == FAILED
        assert "[y/N]" not in await terminal.until("not-allowed")


async def test_cleanup_passes_disconnect_on(control: ScriptedControl) -> None:
    control.has(state=State.COMMITTED, attempt=1)
    ended = await cutover("cleanup", "vol1", "--yes", "--disconnect", "--json", server=control.bus.url)
    assert ended.json["state"] is None
    assert [without_operation(request) for request in control.requests("cleanup")] == [
        CleanupRequest(disconnect=True)
    ]


async def test_every_command_has_help_worth_reading() -> None:
    commands = (
        "up", "migrate", "setup", "sync", "pause", "resume", "throttle", "select-target", "select-source", "commit",
        "abort", "cleanup", "list", "query", "faults", "events", "wait", "vouch",
    )  # fmt: skip
    overview = await cutover("--help")
    assert overview.status == DONE
    assert "Exit status" in overview.stdout
    for command in commands:
        assert f"│ {command} " in overview.stdout
    ended = await asyncio.gather(*(cutover(command, "--help") for command in commands))
    assert [(each.status, "Usage: cutover" in each.stdout) for each in ended] == [(DONE, True)] * len(
        commands
    )
    for each in (overview, *ended):
        assert "bool" not in each.stdout
        assert "-h " in each.stdout


async def test_events_are_a_line_each(control: ScriptedControl) -> None:
    control.has()
    async with started("events", "--json", server=control.bus.url) as process:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while (line := await _line_or_tell(process.stdout, control)) is None:
                pass
    event = orjson.loads(line)
    assert event["subject"] == "cutover.journal.vol1.state"
    assert event["data"]["state"] == "setup"


async def _line_or_tell(stdout: asyncio.StreamReader, control: ScriptedControl) -> bytes | None:
    """The next line; while there is none, something is told, for nobody says when the listening has begun."""
    await control.tell()
    try:
        async with asyncio.timeout(0.2):
            return await stdout.readline()
    except TimeoutError:
        return None
