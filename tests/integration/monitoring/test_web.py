"""The page's server: what it answers, to whom, and with which headers; the stream, and the commands."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest

from services.monitoring.access import Access
from services.monitoring.commanding import Commanding
from services.monitoring.web import BODY_BYTES_MAX, Operator
from shared.messages.control import CommandReply
from shared.messages.status import MigrationStatus
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.page import Page, page_of
from tests.support.staged import World
from tests.support.statuses import status

TOKEN = "the-access-token-of-this-test-0123456789"


class Bus:
    """Answers every question with one status, and notes the commands."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def request(self, subject: str, payload: object, reply: type, *, timeout_s: float) -> Any:
        if reply is MigrationStatus:
            return status(state=State.SYNCING, attempt=1)
        self.sent.append(subject)
        return CommandReply(
            name="vol1", uuid="u", state=State.SYNCING, authority=Side.SOURCE, attempt=1, decision=2
        )

    async def publish(self, subject: str, payload: object) -> None:
        raise AssertionError


BUS = Bus()


@pytest.fixture(scope="module")
def shown() -> Iterator[tuple[Page, World]]:
    with page_of(3) as page:
        yield page


@pytest.fixture(scope="module")
def commanded() -> Iterator[Page]:
    commanding = Commanding(BUS)
    with page_of(1, Operator(access=Access(TOKEN, lambda: 0.0), commanding=lambda: commanding)) as (page, _):
        yield page


def ask(url: str, body: dict[str, Any] | bytes | None = None, **headers: str) -> tuple[int, Any, Message]:
    """Status, body and headers; JSON is read."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(
        url, data, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            code, content, found = answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        code, content, found = error.code, error.read(), error.headers
        error.close()
    is_json = found.get("content-type", "").startswith("application/json")
    return code, json.loads(content) if is_json else content.decode(), found


def frames(url: str, count: int, **headers: str) -> list[dict[str, Any]]:
    """The first frames of a stream, with their ids."""
    found: list[dict[str, Any]] = []
    request = urllib.request.Request(
        url, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    with urllib.request.urlopen(request, timeout=10) as stream:
        identifier = ""
        while len(found) < count:
            line = stream.readline().decode().rstrip("\n")
            if line.startswith("id: "):
                identifier = line[4:]
            elif line.startswith("data: "):
                found.append(json.loads(line[6:]) | {"id": identifier})
    return found


@pytest.mark.parametrize(
    "path", ["", "static/main.js", "static/page.css", "static/icon.svg", "metrics", "session", "nowhere"]
)
def test_everything_is_answered_under_a_strict_policy(shown: tuple[Page, World], path: str) -> None:
    _, _, headers = ask(shown[0].url + path)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http:" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_page_has_its_diagram_and_nothing_from_elsewhere(shown: tuple[Page, World]) -> None:
    code, text, _ = ask(shown[0].url)
    assert code == 200
    for state in State:
        assert f'data-state="{state}"' in text
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<script>" not in text
    assert " onclick" not in text


def test_foreign_name_led_here_is_not_answered(shown: tuple[Page, World]) -> None:
    code, text, _ = ask(shown[0].url + "events", Host="evil.example:80")
    assert code == 421
    assert "vol" not in text


def test_stream_begins_with_everything_and_goes_on_with_changes(shown: tuple[Page, World]) -> None:
    page, world = shown
    name = world.views[0].name
    (whole,) = frames(f"{page.url}events?migration={name}", 1)
    assert (whole["whole"], len(whole["rows"]), whole["detail"]["name"]) == (True, 3, name)
    page.tell(lambda: page.picture.told_progress(world.views[1], 1.0))
    (then,) = frames(f"{page.url}events", 1, Last_Event_ID=whole["id"])
    assert not then["whole"]
    assert [row["name"] for row in then["rows"]] == [world.views[1].name]
    (other,) = frames(f"{page.url}events", 1, Last_Event_ID="another-process:5")
    assert other["whole"]


def test_a_wrong_token_leaves_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Failing, whoever guesses is not noticed."""
    with page_of(1, Operator(access=Access(TOKEN, lambda: 0.0), commanding=lambda: None)) as (page, _):
        code, _, _ = ask(page.url + "login", {"token": "guessed"}, Origin=page.url.rstrip("/"))
    assert code == 403
    told = [each.getMessage() for each in caplog.records if each.name == "services.monitoring.attempts"]
    assert told == ["a log-in from 127.0.0.1 was turned away: that is not the access token"]


def test_metrics_are_served_in_the_format_that_is_asked_for(shown: tuple[Page, World]) -> None:
    _, text, headers = ask(shown[0].url + "metrics")
    assert headers["content-type"].startswith("text/plain")
    assert "cutover_migration_state" in text
    _, text, headers = ask(shown[0].url + "metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_page_without_an_operator_has_no_commands(shown: tuple[Page, World]) -> None:
    url = shown[0].url
    assert ask(url + "session")[1] == {"offers_commands": False, "csrf": None}
    for path in ("login", "migrations/vol1/command/commit"):
        assert ask(url + path, {"token": TOKEN}, Origin=url.rstrip("/"))[0] == 403
    assert ask(url + "migrations/vol1/question/commit")[0] == 403


def logged_in(page: Page) -> tuple[str, dict[str, str]]:
    """The origin, and the headers that a page of ours would send with a command."""
    origin = page.url.rstrip("/")
    code, body, headers = ask(page.url + "login", {"token": TOKEN}, Origin=origin)
    assert code == 200
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    return origin, {"Cookie": cookie.partition(";")[0], "X_Cutover_CSRF": body["csrf"]}


def test_command_of_our_own_page_is_carried_out(commanded: Page) -> None:
    origin, secrets = logged_in(commanded)
    BUS.sent.clear()
    assert "pause" in ask(commanded.url + "migrations/vol1/offered", None, **secrets)[1]["commands"]
    question = ask(commanded.url + "migrations/vol1/question/abort", None, **secrets)[1]
    assert question["text"].startswith("Abort vol1")
    code, reply, _ = ask(commanded.url + "migrations/vol1/command/pause", {}, Origin=origin, **secrets)
    assert (code, reply["state"]) == (200, "syncing")
    assert BUS.sent == ["cutover.control.pause.vol1"]


def test_forged_commands_are_refused(commanded: Page) -> None:
    origin, secrets = logged_in(commanded)
    url = commanded.url + "migrations/vol1/command/abort"
    without_cookie = {"X_Cutover_CSRF": secrets["X_Cutover_CSRF"]}
    BUS.sent.clear()
    for forged in (
        {"Origin": "http://evil.example", **secrets},
        {"Origin": "null", **secrets},
        secrets,  # no origin at all
        {"Origin": origin, "Cookie": secrets["Cookie"]},
        {"Origin": origin, "Cookie": secrets["Cookie"], "X_Cutover_CSRF": "guessed"},
        {"Origin": origin, **without_cookie},
        {"Origin": origin},
    ):
        assert ask(url, {}, **forged)[0] == 403, forged
    assert not BUS.sent


def test_wrong_token_opens_nothing(commanded: Page) -> None:
    origin = commanded.url.rstrip("/")
    for body in ({"token": "guessed"}, {"token": 5}, {}, {"token": "é" * 10}):
        code, answer, headers = ask(commanded.url + "login", body, Origin=origin)
        assert (code, answer["error"]["code"]) == (403, "forbidden")
        assert "set-cookie" not in headers


def test_log_out_ends_the_session(commanded: Page) -> None:
    origin, secrets = logged_in(commanded)
    assert ask(commanded.url + "logout", {}, Origin=origin, **secrets)[0] == 200
    assert ask(commanded.url + "migrations/vol1/offered", None, **secrets)[0] == 403


def test_refusals_and_requests_that_are_none_are_told_in_words(commanded: Page) -> None:
    origin, secrets = logged_in(commanded)
    post = f"{commanded.url}migrations/vol1/command/"
    for path, body, code in (
        ("setup", b"{}", 409), ("pause", b"[]", 400), ("pause", b"{", 400), ("pause", b'{"x": 1}', 400),
        ("pause", b'"' + b"x" * BODY_BYTES_MAX + b'"', 413),
    ):  # fmt: skip
        answered, answer, _ = ask(post + path, body, Origin=origin, **secrets)
        assert (answered, bool(answer["error"]["message"])) == (code, True), body
