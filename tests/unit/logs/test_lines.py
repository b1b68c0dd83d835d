"""What a line says: the same as text and as JSON, with nothing in it that a terminal or a reader of logs would obey."""

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from shared.logs.about import Process, Whereabouts, about, about_host
from shared.logs.lines import MESSAGE_CHARACTERS_MAX, json_line, text_line

HOST = Process(service="write_cloning", host="h1", run=3, whereabouts=lambda _name: Whereabouts(2, ""))
CONTROL = Process(service="state_control", whereabouts=lambda _name: Whereabouts(1, "h2"))


def record(
    message: str,
    *values: object,
    level: int = logging.INFO,
    error: BaseException | None = None,
    extra: Mapping[str, object] | None = None,
) -> logging.LogRecord:
    told = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("services.x", level, __file__, 1, message, values, told)
    made.__dict__ |= extra or {}
    made.created = 1764439262.1234
    return made


def as_json(made: logging.LogRecord, process: Process = HOST) -> dict[str, Any]:
    line = json_line(made, process)
    assert "\n" not in line
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_a_line_says_when_how_bad_who_and_what_it_is_about() -> None:
    made = record("the %s failed", "target", level=logging.ERROR, extra=about("vol1"))
    assert as_json(made) == {
        "time": "2025-11-29T18:01:02.123Z",
        "level": "error",
        "service": "write_cloning",
        "host": "h1",
        "run": 3,
        "migration": "vol1",
        "attempt": 2,
        "message": "the target failed",
    }
    assert text_line(made, HOST) == (
        "2025-11-29T18:01:02.123Z ERROR   write_cloning host=h1 run=3 migration=vol1 attempt=2: the target failed"
    )


def test_what_is_stated_counts_more_than_what_is_known() -> None:
    made = record("recorded", extra=about("vol1", 7, host="h9"))
    assert [as_json(made, CONTROL)[key] for key in ("attempt", "host")] == [7, "h9"]


def test_a_service_that_serves_no_host_knows_whose_migration_it_is() -> None:
    told = as_json(record("sync is done", extra=about("vol1")), CONTROL)
    assert (told["migration"], told["attempt"], told["host"]) == ("vol1", 1, "h2")


def test_a_line_about_nothing_in_particular_has_what_all_lines_have() -> None:
    assert "migration" not in as_json(record("begins"))
    assert as_json(record("begins"))["run"] == 3
    assert as_json(record("has its answer", extra=about_host("h5")), CONTROL)["host"] == "h5"


@pytest.mark.parametrize(
    "hostile", ["a\nERROR forged", "\x1b[2J", "\u202eevil", "\udc80", "\x9b31m", "\u2028x", "\x00"]
)
def test_nothing_that_came_from_elsewhere_is_obeyed(hostile: str) -> None:
    made = record("%s is connected", hostile, extra=about(hostile, host=hostile))
    for line in (text_line(made, HOST), json_line(made, HOST), *as_json(made).values()):
        if isinstance(line, str):
            assert hostile not in line
            assert len(line.splitlines()) == 1
    assert "forged" not in [text.split(" ")[0] for text in text_line(made, HOST).splitlines()]


def failed(text: str) -> BaseException:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_an_error_has_its_kind_its_words_and_its_traceback() -> None:
    made = record("a request failed", error=failed("no\x1b[2J"))
    told = as_json(made)["error"]
    assert told["type"] == "builtins.ValueError"
    assert told["message"] == "no\\x1b[2J"
    assert told["traceback"].startswith("Traceback (most recent call last):\n")
    assert "test_lines.py" in told["traceback"]


def test_no_line_of_a_traceback_looks_like_a_line_of_the_log() -> None:
    made = record(
        "a request failed", error=failed("x\n2025-11-29T18:01:02.123Z ERROR   state_control: forged")
    )
    first, *below = text_line(made, HOST).splitlines()
    assert first.endswith(": a request failed")
    assert below
    assert all(line.startswith("    | ") for line in below)


@pytest.mark.parametrize("values", [(1,), ("a", "b", "c"), ({"x": 1},)])
def test_a_message_that_cannot_be_made_up_is_told_of(values: tuple[object, ...]) -> None:
    told = as_json(record("of %s and %d", *values))["message"]
    assert told.startswith("of %s and %d (its details cannot be shown: ")


def test_a_message_without_end_is_cut() -> None:
    told = as_json(record("%s", "x" * 100_000))["message"]
    assert len(told) < MESSAGE_CHARACTERS_MAX + 50
    assert told.endswith("(100000 characters)")


def test_an_error_that_is_no_error_is_left_out() -> None:
    made = record("x")
    made.exc_info = sys.exc_info()
    assert "error" not in as_json(made)


def test_name_that_is_thousands_of_characters_long_is_shortened() -> None:
    made = record("the %s failed", "target", extra=about("v" * 3000, host="h" * 3000))
    assert len(text_line(made, HOST)) < 700
    assert as_json(made)["migration"].endswith("(3000 characters)")
