"""The commands of the page: which are offered when, what is asked before them, and that each can be sent."""

from typing import Any

import pytest

from services.monitoring.commanding import OFFERS, Commanding, is_offered
from shared.messages.control import CommandReply
from shared.messages.questions import abort_question, cleanup_question, commit_question
from shared.messages.status import ConnectionView, MigrationStatus
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support.statuses import status


class Asked:
    """A bus that answers `query` with a status, and every command with yes."""

    def __init__(self, present: MigrationStatus) -> None:
        self.present = present
        self.sent: list[tuple[str, Any]] = []

    async def request(self, subject: str, payload: object, reply: type, *, timeout_s: float) -> Any:
        if reply is MigrationStatus:
            return self.present
        self.sent.append((subject, payload))
        return CommandReply(
            name="vol1", uuid="u", state=State.SETUP, authority=Side.SOURCE, attempt=1, decision=2
        )

    async def publish(self, subject: str, payload: object) -> None:
        raise AssertionError


def offered(**fields: Any) -> set[str]:
    return {command for command in OFFERS if is_offered(command, status(**fields))}


def test_what_the_status_allows_is_offered_and_what_the_host_takes() -> None:
    assert offered(state=State.SETUP) == {"sync", "cleanup"}
    assert offered(state=State.SYNCING, attempt=1) == {"abort", "pause", "throttle"}
    assert offered(state=State.SYNCING, attempt=1, paused=True) == {"abort", "resume", "throttle"}
    assert offered(state=State.SOURCE_SELECTED, attempt=1) == {
        "select-target",
        "abort",
        "pause",
        "throttle",
        "verify",
    }
    assert offered(state=State.COMMITTED, authority=Side.TARGET) == {"cleanup"}


def test_nothing_is_offered_for_a_volume_that_is_closed() -> None:
    assert offered(state=State.SYNCING, host_error="closed", allowed=()) == set()


@pytest.mark.parametrize("command", sorted(OFFERS))
async def test_every_command_can_be_sent_with_its_defaults(command: str) -> None:
    bus = Asked(status())
    await Commanding(bus).carry_out(command, "vol1", {})
    ((subject, payload),) = bus.sent
    assert subject == f"cutover.control.{command}.vol1"
    assert isinstance(payload, OFFERS[command].request)
    assert payload.operation_id.startswith("page-")  # type: ignore[attr-defined]


async def test_what_cannot_be_undone_is_asked_in_the_words_of_the_command_line() -> None:
    client = ConnectionView(peer="qemu", connected_at="2026-01-31T12:00:00.000000Z")
    present = status(state=State.TARGET_SELECTED, attempt=1, connections=(client,), needs_verify=True)
    commanding = Commanding(Asked(present))
    for command, words in (
        ("commit", commit_question(present)),
        ("abort", abort_question(present)),
        ("cleanup", cleanup_question(present, disconnect=True)),
    ):
        question = await commanding.question(command, "vol1")
        assert (question.text, question.is_final) == (words, True)
    commit = await commanding.question("commit", "vol1")
    assert [option["name"] for option in commit.options] == ["verified"]
    assert "detach the source" in commit.afterwards


@pytest.mark.parametrize(
    ("command", "name", "options", "code"),
    [
        ("setup", "vol1", {}, Code.UNKNOWN_COMMAND),
        ("give-up", "vol1", {}, Code.UNKNOWN_COMMAND),
        ("sync", "vol1.>", {}, Code.BAD_NAME),
        ("sync", "*", {}, Code.BAD_NAME),
        ("sync", "vol1", {"overwrite": True}, Code.BAD_REQUEST),
        ("throttle", "vol1", {"bytes_per_s": "much"}, Code.BAD_REQUEST),
    ],
)
async def test_what_is_not_of_the_page_is_refused_and_not_sent(
    command: str, name: str, options: dict[str, Any], code: Code
) -> None:
    bus = Asked(status())
    with pytest.raises(Refusal) as refused:
        await Commanding(bus).carry_out(command, name, options)
    assert refused.value.code is code
    assert not bus.sent
