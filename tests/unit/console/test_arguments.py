"""Arguments that are no text."""

import json

import pytest

from services.console.application import run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("setup", "v1", "--source", "/tmp/\udcff", "--target", "/b"),
            "--source: '/tmp/\\xff' is not UTF-8.",
        ),
        (("query", "\udcff"), "'\\xff' is not UTF-8."),
        (("--\udcff",), "'--\\xff' is not UTF-8."),
    ],
)
def test_an_argument_that_is_no_text_is_refused_by_name(
    arguments: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """It came out of the codec as a defect."""
    assert run([*arguments, "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["message"] == said
