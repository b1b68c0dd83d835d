"""Whom the commands that only show ask, and in which order they tell."""

from pathlib import Path

import pytest

from services.console.application import run
from services.console.looking import _by_name
from services.console.named_nats import nats_of
from tests.support.statuses import status


def test_names_are_in_the_order_of_their_numbers() -> None:
    names = ["m1", "m2", "m010", "m10", "m11", "m100", "n1", "n1-9", "n1-10"]
    assert [each.name for each in sorted((status(name=name) for name in reversed(names)), key=_by_name)] == [
        *names[:2], "m10", "m010", *names[4:],
    ]  # fmt: skip


def test_the_file_that_is_named_says_which_nats_and_with_which_key(tmp_path: Path) -> None:
    """Cause: `doctor --config FILE` took both from FILE, `list --config FILE` neither."""
    file = tmp_path / "h1.toml"
    file.write_text('[nats]\nurl = "nats://127.0.0.1:9"\nnkey_seed_file = "/h1.nk"\n')
    named = nats_of({"CUTOVER_CONFIG": "/no/such"}, file)
    assert (named.url, named.nkey_seed_file) == ("nats://127.0.0.1:9", "/h1.nk")


@pytest.mark.parametrize("command", [("list",), ("query", "vol1")])
def test_what_is_wrong_in_it_is_named(
    command: tuple[str, ...],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUTOVER_NATS_URL", raising=False)
    file = tmp_path / "h1.toml"
    file.write_text('[nats]\nurl = "nats://127.0.0.1:70000"\n')
    assert run([*command, "--config", str(file)]) != 0
    assert "nats.url: names no server" in capfd.readouterr().err
