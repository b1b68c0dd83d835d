"""What the console itself says no to, and in which words."""

from pathlib import Path

import pytest

from services.console.application import run
from services.console.confirming import confirm
from services.console.failures import ConsoleError
from services.console.moving import failed_at_once
from services.console.output import Output
from services.console.recovering import recovery_view
from services.console.services_config import refuse_file_of_a_role
from shared.messages.control import CommandReply
from shared.messages.recovery import RecoveryReply
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support.drawing import drawn
from tests.support.statuses import fault


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
    "nats", ["url = 'tls://n:4222'", "nkey_seed_file = '/etc/cutover/secrets/operator.nk'"]
)
@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(Code.JOURNAL_AWAY, "NATS at tls://n:4222 cannot be reached."),
        Refusal(Code.SERVICE_AWAY, "Nobody answers."),
    ],
)
def test_in_an_installation_nobody_is_sent_to_up(
    refusal: Refusal,
    nats: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It was advised: it starts a second NATS, without TLS and with an empty journal, beside the one that is meant."""
    file = tmp_path / "operator.toml"
    file.write_text(f"[nats]\n{nats}\n")
    monkeypatch.setenv("CUTOVER_CONFIG", str(file))
    Output(json=False).error(refusal)
    told = capfd.readouterr().err
    assert "`cutover up`" not in told
    assert "`cutover doctor`" in told


def test_faults_of_a_kind_are_said_once_with_their_number() -> None:
    """A source that was gone filled the sentence with thirty-two times the same."""
    reply = CommandReply(
        name="vol1", uuid="u", state=State.SETUP, authority=Side.SOURCE, attempt=1, decision=2
    )
    log = (*(fault(Side.SOURCE, operation="read") for _ in range(32)), fault(Side.TARGET))
    said = failed_at_once(reply, log).message
    assert "ended at once by a fault: source read, EIO ×32; target write, EIO. The source" in said


@pytest.mark.parametrize("is_named", [True, False])
def test_up_is_refused_with_the_file_of_a_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *, is_named: bool
) -> None:
    """It started every service with the operator's key; or, past CUTOVER_CONFIG, another NATS beside the secured one."""
    file, state = tmp_path / "operator.toml", tmp_path / "state"
    file.write_text("[nats]\nurl = 'tls://n:4222'\nnkey_seed_file = '/etc/cutover/secrets/operator.nk'\n")
    if not is_named:
        monkeypatch.setenv("CUTOVER_CONFIG", str(file))
    named = ("--config", str(file)) if is_named else ()
    assert run(["up", *named, "--state-dir", str(state)]) == 2
    told = capfd.readouterr().err
    assert told.startswith(
        f"usage: {'--config' if is_named else 'CUTOVER_CONFIG'}: {file} has the key of one role"
    )
    assert not state.exists()


def test_up_goes_by_the_file_that_it_is_given(tmp_path: Path) -> None:
    own, of_role = tmp_path / "own.toml", tmp_path / "operator.toml"
    own.write_text("[nats]\nurl = 'nats://n:4222'\n")
    of_role.write_text("[nats]\nnkey_seed_file = '/s'\n")
    refuse_file_of_a_role(own, {"CUTOVER_CONFIG": str(of_role)})
    refuse_file_of_a_role(None, {"CUTOVER_CONFIG": str(own)})
    with pytest.raises(ConsoleError):
        refuse_file_of_a_role(of_role, {"CUTOVER_CONFIG": str(own)})


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


def test_volume_that_is_open_and_fails_is_not_told_as_well() -> None:
    """«Nothing is to be recovered» was all that was said of a volume whose every request failed."""
    trouble = "vol1: the application gets errors: 1 request failed, at T: source read at 0: EIO."
    known = RecoveryReply(
        name="vol1", uuid="u", host="h1", recorded_host="h1", standing="open", why="", proved=True, held="source",
        tellings=(), sides=(), choices=(), warnings=(trouble,),
    )  # fmt: skip
    lines = drawn(recovery_view(known)).splitlines()
    assert lines[0].rstrip() == "vol1  open on host h1: nothing is to be recovered, but see the warning"
    assert any(trouble in line for line in lines)
