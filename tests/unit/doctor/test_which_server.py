"""Which server `cutover doctor` asks: the one that the configuration names which it looks at, unless another is given."""

from pathlib import Path

import orjson
import pytest

from services.console import diagnosing
from services.console.application import run
from shared.clock import Clock
from shared.config.model import NatsConfig
from shared.migration.refusals import Code, Refusal

MINE, OTHER, GIVEN = "nats://127.0.0.1:1", "nats://127.0.0.1:2", "nats://127.0.0.1:3"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs of the servers that were asked."""
    urls: list[str] = []

    async def look(config: NatsConfig, _clock: Clock) -> object:
        urls.append(config.url)
        raise Refusal(Code.JOURNAL_AWAY, "Nobody is there.")

    monkeypatch.setattr(diagnosing, "look_at_bus", look)
    return urls


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def checks(capsys: pytest.CaptureFixture[str]) -> list[str]:
    told = orjson.loads(capsys.readouterr().out)["checks"]
    return [line["check"] for line in told if line["outcome"] == "failure"]


@pytest.mark.parametrize("other", [f'[nats]\nurl = "{OTHER}"\n', "no TOML", None])
def test_the_file_that_is_named_wins(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, other: str | None
) -> None:
    """CUTOVER_CONFIG is set in an operator's shell, with another server in it, or broken, or gone."""
    elsewhere = tmp_path / "operator.toml"
    if other is not None:
        elsewhere.write_text(other)
    monkeypatch.setenv("CUTOVER_CONFIG", str(elsewhere))
    mine = written(tmp_path / "h1.toml", f'[nats]\nurl = "{MINE}"\n')
    run(["doctor", "--config", str(mine), "--json"])
    run(["--server", GIVEN, "doctor", "--config", str(mine), "--json"])
    monkeypatch.setenv("CUTOVER_NATS_URL", GIVEN)
    run(["doctor", "--config", str(mine), "--json"])
    assert asked == [MINE, GIVEN, GIVEN]


def test_where_the_file_is_no_use_no_other_server_is_asked(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("no TOML", '[nats]\nurl = "http://x"\n'):
        run(["doctor", "--config", str(written(tmp_path / "x.toml", text)), "--json"])
        assert checks(capsys) == ["configuration"]
    assert asked == []


def test_a_mistake_elsewhere_in_the_file_keeps_nobody_from_asking(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'[nats]\nurl = "{MINE}"\n[host]\nname = "X Y"\n'
    run(["doctor", "--config", str(written(tmp_path / "x.toml", text)), "--json"])
    assert checks(capsys) == ["configuration", "nats"]
    assert asked == [MINE]
