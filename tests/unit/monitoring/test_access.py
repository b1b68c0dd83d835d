"""Who may give commands: the token, its file, and the sessions."""

import stat
from pathlib import Path

import pytest

from services.monitoring.access import SESSION_S, SESSIONS_MAX, Access, kept_token
from shared.migration.refusals import Refusal

TOKEN = "t" * 43


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> Access:
    return Access(TOKEN, clock)


def test_token_opens_a_session_and_nothing_else_does(access: Access) -> None:
    assert access.log_in("") is None
    assert access.log_in(TOKEN[:-1]) is None
    assert access.log_in(TOKEN + "é") is None
    session = access.log_in(TOKEN)
    assert session is not None
    assert access.session(session.cookie) == session
    assert access.session("") is None


def test_command_needs_both_secrets_of_one_session(access: Access) -> None:
    one, other = access.log_in(TOKEN), access.log_in(TOKEN)
    assert one is not None
    assert other is not None
    assert access.may_command(one.cookie, one.csrf_token)
    assert not access.may_command(one.cookie, other.csrf_token)
    assert not access.may_command(one.cookie, "")
    assert not access.may_command("", one.csrf_token)


def test_session_ends_with_its_time_and_with_the_log_out(access: Access, clock: Clock) -> None:
    one, other = access.log_in(TOKEN), access.log_in(TOKEN)
    assert one is not None
    assert other is not None
    access.log_out(one.cookie)
    assert access.session(one.cookie) is None
    clock.now = SESSION_S
    assert access.session(other.cookie) is None


def test_sessions_are_bounded(access: Access) -> None:
    sessions = [access.log_in(TOKEN) for _ in range(SESSIONS_MAX + 1)]
    assert access.session(sessions[0].cookie) is None  # type: ignore[union-attr]
    assert access.session(sessions[-1].cookie) is not None  # type: ignore[union-attr]


def test_new_token_is_in_a_file_that_only_we_can_read_and_stays_there(tmp_path: Path) -> None:
    with kept_token(tmp_path / "token") as (token, file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text().strip() == token
    with kept_token(file) as again:
        assert again == (token, file)


def test_without_a_place_for_it_there_is_another_token_each_time_and_nothing_is_left_of_it() -> None:
    with kept_token(None) as (one, first), kept_token(None) as (other, second):
        assert one != other
        assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert not first.parent.exists()
    assert not second.parent.exists()


def refused(file: Path, because: str) -> None:
    with pytest.raises(Refusal, match=because), kept_token(file):
        pass


def test_file_that_others_can_read_or_that_holds_too_little_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    refused(file, "chmod 600")
    file.write_text("short")
    file.chmod(0o600)
    refused(file, "fewer than 32")
    refused(tmp_path / "nowhere" / "token", "No such file or directory")
