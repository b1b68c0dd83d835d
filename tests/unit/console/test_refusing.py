"""What the console itself says no to, and in which words."""

from pathlib import Path

import pytest

from services.console.application import run
from services.console.confirming import confirm
from services.console.failures import ConsoleError
from services.console.output import Output
from services.console.recovering import recovery_view
from shared.messages.recovery import RecoveryReply
from shared.migration.refusals import Code, Refusal
from tests.support.drawing import drawn


@pytest.mark.parametrize("command", [("list",), ("query", "vol1")])
def test_a_configuration_that_is_not_there_is_refused(
    command: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It was passed over in silence while NATS answered."""
    assert run([*command, "--config", str(tmp_path / "none")]) == 2
    assert "does not exist" in " ".join(capfd.readouterr().err.split())


async def test_where_nobody_can_be_asked_the_question_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.console.confirming.can_ask", lambda: False)
    with pytest.raises(ConsoleError) as caught:
        await confirm(Output(json=False), "adopt-target", "Adopt target vol1: it may lose.\n  source /a: all")
    assert "Adopt target vol1: it may lose. source /a: all" in caught.value.message
    assert caught.value.message.endswith("give --yes.")


@pytest.mark.parametrize(
    ("refusal", "is_hinted"),
    [
        (Refusal(Code.JOURNAL_AWAY, "NATS at nats://x cannot be reached."), True),
        (Refusal(Code.JOURNAL_AWAY, "The stream X is not there; `bootstrap` creates it."), False),
        (Refusal(Code.SERVICE_AWAY, "Nobody answers."), True),
    ],
)
def test_a_nats_that_answers_needs_no_other(
    refusal: Refusal, *, is_hinted: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    Output(json=False).error(refusal)
    assert ("`cutover up`" in capfd.readouterr().err) is is_hinted


@pytest.mark.parametrize(
    ("standing", "asked", "head"),
    [
        ("away", "h1", "vol1  its host, h1, does not answer"),
        ("away", "h2", "vol1  its host, h1, does not answer; looked at from h2"),
        ("waiting", "h1", "vol1  host h1 is up, and not admitted yet"),
        ("closed", "h1", "vol1  closed on host h1"),
    ],
)
def test_who_looked_is_named_only_where_that_is_another(standing: str, asked: str, head: str) -> None:
    known = RecoveryReply(
        name="vol1", uuid="u", host=asked, recorded_host="h1", standing=standing, why="", proved=True, held="both",
        tellings=(), sides=(), choices=(),
    )  # fmt: skip
    assert drawn(recovery_view(known)).splitlines()[0].rstrip() == head
