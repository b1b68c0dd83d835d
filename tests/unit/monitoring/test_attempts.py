"""The log of log-ins: each one, and wrong tokens without filling the log."""

from collections.abc import Callable

import pytest

from services.monitoring.attempts import BETWEEN_LINES_S, Attempts


class Seconds:
    """What is to be called when a line may be written again."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        assert delay_s == BETWEEN_LINES_S
        self.waiting.append(call)

    def pass_one(self) -> None:
        (call,) = self.waiting
        self.waiting.clear()
        call()


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(each.levelname, each.getMessage()) for each in caplog.records]


def test_a_wrong_token_and_a_log_in_are_each_a_line_with_the_address(
    seconds: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    """Failing, nobody learns that somebody guesses."""
    caplog.set_level("INFO")
    attempts = Attempts(seconds.later)
    attempts.failed("192.0.2.1")
    attempts.succeeded("192.0.2.2")
    (failed, succeeded) = told(caplog)
    assert failed == ("WARNING", "a log-in from 192.0.2.1 was turned away: that is not the access token")
    assert succeeded == ("INFO", "somebody at 192.0.2.2 has logged in, and may give commands")


def test_a_flood_is_a_line_a_second_that_counts_all(
    seconds: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = Attempts(seconds.later)
    for number in range(1000):
        attempts.failed(f"192.0.2.{number % 7}")
    assert len(told(caplog)) == 1
    seconds.pass_one()
    assert told(caplog)[1:] == [("WARNING", "log-ins turned away since: 999, the last from 192.0.2.5")]
    attempts.failed("192.0.2.9")
    assert len(told(caplog)) == 2, "a second has not passed since the last line"
    seconds.pass_one()
    assert told(caplog)[2:] == [("WARNING", "log-ins turned away since: 1, the last from 192.0.2.9")]
    seconds.pass_one()
    assert len(told(caplog)) == 3
    assert not seconds.waiting, "nothing is called for ever after"
    attempts.failed("192.0.2.1")
    assert told(caplog)[3][1].startswith("a log-in from 192.0.2.1")


def test_what_a_proxy_tells_as_an_address_is_no_line_of_its_own(
    seconds: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = Attempts(seconds.later)
    attempts.failed("x\nERROR the host was lost\x1b[2J" + "y" * 10_000)
    ((_, message),) = told(caplog)
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 500
