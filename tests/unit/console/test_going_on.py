"""The command line that goes on with an interrupted `migrate`: the very one that was given, but for what could do harm."""

import os
import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from typer.main import get_command

from services.console.application import application
from services.console.command_line import command_line
from services.console.going_on import GoingOn

ROOT: Any = get_command(application)
MIGRATE: Any = ROOT.commands["migrate"]
OPTIONS = [option for option in MIGRATE.params if option.param_type_name == "option"]
NEEDED = ["--source", "/dev/old", "--target", "/dev/new"]


@pytest.fixture(autouse=True)
def _no_server_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUTOVER_NATS_URL", raising=False)


def parsed(arguments: Sequence[str], before: Sequence[str] = ()) -> Any:
    root = ROOT.make_context("cutover", [*before, "migrate"], resilient_parsing=False)
    return MIGRATE.make_context("migrate", list(arguments), parent=root)


def given_value(option: Any) -> list[str]:
    return [] if option.is_flag else [f"/a {option.name}'s"]


def going_on(context: Any, **fields: Any) -> GoingOn:
    fields = {"name": "vol1", "options": {}, "where": {"state_dir": "/s"}} | fields
    return GoingOn(write=partial(command_line, context), **fields)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_option_of_migrate_is_repeated_when_it_was_given(option: Any) -> None:
    flag = max(option.opts, key=len)
    words = [flag, *given_value(option)]
    first = parsed([*NEEDED, *words])  # of an option that is given twice, the last one counts
    line = shlex.split(command_line(first, {}))
    assert line[:2] == ["cutover", "migrate"]
    place = line.index(flag)
    assert line[place : place + len(words)] == words
    assert parsed(line[2:]).params == first.params


def test_options_that_were_not_given_are_left_out() -> None:
    assert command_line(parsed(NEEDED), {}) == "cutover migrate --source /dev/old --target /dev/new"


def test_options_before_the_command_and_of_the_environment_are_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "--server nats://n:1 --json" in command_line(parsed(NEEDED, ["--json", "-s", "nats://n:1"]), {})
    monkeypatch.setenv("CUTOVER_NATS_URL", "nats://env:1")
    assert "--server nats://env:1" in command_line(parsed(NEEDED), {})
    assert "--server nats://n:1" in command_line(parsed(NEEDED, ["-s", "nats://n:1"]), {})


def test_consent_to_overwrite_is_repeated_only_before_anything_was_set_up() -> None:
    context = parsed([*NEEDED, "--overwrite-target"])
    assert "--overwrite-target" in going_on(context).line
    assert "--overwrite-target" not in going_on(context, is_begun=True).line


def test_no_line_is_given_once_the_cleanup_was_asked_for() -> None:
    """The name may be free again; the line would begin a new migration from the old source."""
    advice = going_on(parsed(NEEDED), is_begun=True, is_ending=True).advice
    assert "cutover migrate" not in advice
    assert "cutover list" in advice


def test_before_any_services_were_found_nothing_was_done() -> None:
    assert going_on(parsed(NEEDED), where={}).advice == "Nothing was done for vol1 yet."


def test_secrets_of_the_server_are_not_printed() -> None:
    url = "nats://alice:secret@n:1"
    advice = going_on(parsed([*NEEDED, "--server", url]), where={"server": url}).advice
    assert "secret" not in advice
    assert "--server nats://n:1" in advice
    assert "left out" in advice


def test_the_services_that_were_used_are_named() -> None:
    line = going_on(parsed(NEEDED), where={"state_dir": os.path.abspath("s")}).line  # noqa: PTH100
    assert f"--state-dir {os.path.abspath('s')}" in line  # noqa: PTH100
