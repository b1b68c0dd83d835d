"""NATS is away: the host on this machine is asked, if there is one, and said to be who tells."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from services.console import host_here
from services.console.host_here import HostHere
from services.console.options import CONNECT_TIMEOUT_S
from services.console.output import Output
from services.console.views import status_view
from shared.messages.codec import encode
from shared.messages.host import ClosedView
from shared.messages.local import LocalStatus, local_socket
from shared.messages.status import StatusSource, Unrecorded, UnrecordedDecision
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support.drawing import drawn
from tests.support.statuses import fault, status

AWAY = Refusal(Code.JOURNAL_AWAY, "NATS at nats://127.0.0.1:9 cannot be reached.")
AT = "2026-01-31T12:00:00.000000Z"
FAILED = status(
    state=State.SETUP,
    attempt=1,
    error_flag=True,
    faults=(fault(),),
    journal_pending=True,
    allowed=(),
    source_of_status=StatusSource.HOST,
    nats_lost_at=AT,
    unrecorded=Unrecorded(
        faults=(fault(),),
        decisions=(UnrecordedDecision(decision=4, trigger="target-fault", state=State.SETUP),),
        flag_clear=True,
    ),
)
TOLD = LocalStatus(
    host="h1",
    run=3,
    sentence="Host h1 serves /nbd.sock.",
    nats_is_away=True,
    nats_lost_at=AT,
    migrations=(FAILED,),
    closed=(ClosedView(name="vol2", uuid=None, code="device-missing", message="its target is gone"),),
    at=AT,
)


def here(state_dir: Path | None, config: Path | None) -> HostHere:
    return HostHere(state_dir, config, Output(json=False))


@contextmanager
def answering(folder: Path, answer: bytes) -> Iterator[Path]:
    """A host with that state directory, which tells this to one who comes."""
    folder.mkdir(exist_ok=True)
    path = local_socket(folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(os.fspath(path))
        listening.listen()

        def tell() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(answer)

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        yield path
    path.unlink()


@pytest.mark.parametrize("folder", ["host", "."])
def test_host_of_up_or_of_the_directory_itself_is_found(
    short_path: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    with answering(short_path / folder, encode(TOLD)):
        here(short_path, None).tell_one("vol1", AWAY, Output(json=False))
    said = capsys.readouterr().out
    assert said.startswith(f"NATS is away: {AWAY.message} This is what host h1 on this machine says.")
    assert f"no connection to NATS since {AT}. What the journal holds is not known.\n" in said
    assert "vol1  setup  attempt 1" in said


def test_host_that_the_configuration_names_is_found(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, state_dir = short_path / "host.toml", short_path / "elsewhere"
    config.write_text(f'[host]\nname = "h1"\nstate_dir = "{state_dir}"\n')
    with answering(state_dir, encode(TOLD)):
        here(None, config).tell_one("vol1", AWAY, Output(json=True))
    told = orjson.loads(capsys.readouterr().out)
    assert (told["source_of_status"], told["nats_lost_at"]) == ("host", AT)
    assert told["unrecorded"]["decisions"] == [{"decision": 4, "trigger": "target-fault", "state": "setup"}]
    assert told == orjson.loads(encode(FAILED))


def test_what_the_host_knows_of_nats_is_told(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for told, words in (
        (replace(TOLD, nats_lost_at=None), "It has not been connected to NATS since it was started."),
        (replace(TOLD, nats_is_away=False), "Its own connection to NATS has not broken."),
    ):
        with answering(short_path, encode(told)):
            here(short_path, None).tell_all(AWAY, Output(json=False))
        assert words in capsys.readouterr().out


def test_list_has_a_row_each_and_names_what_is_closed(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(short_path, encode(TOLD)):
        here(short_path, None).tell_all(AWAY, Output(json=False))
    said = capsys.readouterr().out
    assert "\nvol1  setup" in said
    assert "\nvol2 is closed: its target is gone\n" in said
    with answering(short_path, encode(replace(TOLD, migrations=(), closed=(), sentence="It waits."))):
        here(short_path, None).tell_all(AWAY, Output(json=False))
    assert "It has no volume open: It waits." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "why"), [("vol2", "its target is gone"), ("vol3", "Host h1 serves /nbd.sock.")]
)
def test_one_that_the_host_does_not_have_open_is_refused_as_before_and_it_is_said_why(
    short_path: Path, name: str, why: str
) -> None:
    with answering(short_path, encode(TOLD)), pytest.raises(Refusal) as caught:
        here(short_path, None).tell_one(name, AWAY, Output(json=False))
    assert caught.value.code is Code.JOURNAL_AWAY
    assert caught.value.message == f"{AWAY.message} Host h1 on this machine does not have {name} open: {why}"


def test_without_a_host_the_refusal_tells_where_to_ask(short_path: Path) -> None:
    asked = here(short_path, None)
    assert asked.nats_timeout_s == CONNECT_TIMEOUT_S
    with pytest.raises(Refusal, match=r"cannot be reached\. On a host's machine, as its user or root, "):
        asked.tell_one("vol1", AWAY, Output(json=False))


def test_configuration_that_is_no_use_is_told(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = short_path / "wrong.toml"
    config.write_text("[host]\n")
    asked = here(short_path / "none", config)
    assert "host.name: required" in capsys.readouterr().err
    with pytest.raises(Refusal, match=r"wrong\.toml and the environment cannot be used"):
        asked.tell_all(AWAY, Output(json=False))


def test_host_that_hangs_or_is_none_is_told_of(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_here, "ASK_TIMEOUT_S", 0.05)
    path = local_socket(short_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(os.fspath(path))
        with pytest.raises(Refusal, match="Connection refused"):
            here(short_path, None).tell_all(AWAY, Output(json=False))
        listening.listen()
        with pytest.raises(Refusal, match=f"does not answer either: {path}: timed out"):
            here(short_path, None).tell_all(AWAY, Output(json=False))
    path.unlink()
    with answering(short_path, b"{}"), pytest.raises(Refusal, match="cannot be read as LocalStatus"):
        here(short_path, None).tell_all(AWAY, Output(json=False))


def test_other_refusals_are_none_of_the_hosts_business(short_path: Path) -> None:
    unknown = Refusal(Code.UNKNOWN_MIGRATION, "There is no migration 'vol1'.")
    with pytest.raises(Refusal) as caught:
        here(short_path, None).tell_one("vol1", unknown, Output(json=False))
    assert caught.value is unknown


def test_view_has_what_is_to_be_recorded_and_says_that_nothing_can_be_asked_for() -> None:
    view = drawn(status_view(FAILED))
    for words in (
        "target fault: write at 4096: EIO, detected 2026",
        "decision 4: setup, by target-fault",
        "that the error flag is clear",
        "set: still to be cleared",
        "nothing: commands go by NATS",
    ):
        assert words in view
    many = replace(FAILED, unrecorded=Unrecorded(faults=(fault(),) * 20))
    assert "17 faults more" in drawn(status_view(many))
    assert "to record" not in drawn(status_view(status()))


@pytest.mark.parametrize("code", [Code.JOURNAL_AWAY, Code.SERVICE_AWAY, Code.NOT_PERMITTED])
def test_key_that_may_not_ask_is_no_reason_to_tell_nothing(
    short_path: Path, capsys: pytest.CaptureFixture[str], code: Code
) -> None:
    """A host's own file has a key that may ask for no list: the host it names answers all the same."""
    with answering(short_path, encode(TOLD)):
        here(short_path, None).tell_all(Refusal(code, "No."), Output(json=False))
    assert "This is what host h1 on this machine says" in capsys.readouterr().out


def test_host_that_nats_does_not_reach_is_asked_here(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal_s = status(host="h1", host_answers=False, host_error="Host 'h1' is away.")
    other_s = replace(journal_s, host="h2")
    with answering(short_path, encode(TOLD)):
        asked = here(short_path, None)
        assert asked.better(replace(journal_s, host_answers=True)) == replace(journal_s, host_answers=True)
        assert asked.better(other_s) is other_s
        assert asked.better(journal_s) == FAILED
        assert asked.better(replace(journal_s, name="vol9")).name == "vol9"
    said = capsys.readouterr().out
    assert said.count("NATS does not reach host h1. This is what it says on this machine.") == 1
    assert here(short_path, None).better(journal_s) is journal_s, "nobody is here"
