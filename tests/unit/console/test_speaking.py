"""What `cutover up` tells of its services stands in the same form as what they tell themselves."""

import json

import pytest

from services.console.speaking import speaking
from shared.config.model import HostConfig, LogConfig

HOST = HostConfig(name="h1", state_dir="/s")


def test_sentences_stay_sentences_where_logs_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    with speaking(LogConfig(), HOST, told.append) as tell:
        tell("startup runs again.")
    assert told == ["startup runs again."]
    assert capsys.readouterr().err == ""


def test_sentences_become_lines_where_logs_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    with speaking(LogConfig(format="json"), HOST, told.append) as tell:
        tell("startup ended with status 1; starting it again in 0.5 s.")
    assert told == []
    line = json.loads(capsys.readouterr().err)
    assert (line["service"], line["host"], line["level"]) == ("up", "h1", "warning")
    assert line["message"].startswith("startup ended with status 1")
