"""The server's words, as nats-py hands them on."""

import pytest

from shared.bus.denials import Denial, is_of_credentials, read_denial


@pytest.mark.parametrize(
    ("words", "denial"),
    [
        (
            'nats: permissions violation for publish to "cutover.a"',
            Denial(is_publish=True, subject="cutover.a"),
        ),
        (
            'nats: permissions violation for subscription to "a.>" using queue "q"',
            Denial(is_publish=False, subject="a.>"),
        ),
        ('nats: Permissions Violation for Publish to "A"', Denial(is_publish=True, subject="a")),
        ("nats: maximum payload violation", None),
    ],
)
def test_a_denial_is_read(words: str, denial: Denial | None) -> None:
    assert read_denial(Exception(words)) == denial


def test_a_denial_is_of_what_lies_under_a_subject_and_of_nothing_beside_it() -> None:
    denial = Denial(is_publish=True, subject="$js.api.consumer.create.x")
    assert denial.is_of("$JS.API.CONSUMER")
    assert denial.is_of("$JS.API.CONSUMER.CREATE.X")
    assert not denial.is_of("$JS.API.CONS")
    assert not denial.is_of("$JS.API.CONSUMER.CREATE.X.Y")


def test_a_denial_names_the_subject_as_it_was_written() -> None:
    words = Exception('nats: permissions violation for subscription to "_inbox.abc"')
    ours = read_denial(words, {"_inbox.abc": "_INBOX.aBc"})
    assert ours is not None
    assert ours.is_of("_inbox.ABC")
    assert ours.sentence("X") == "The NATS server does not permit X to subscribe to _INBOX.aBc."
    assert ours.sentence("X", 1).endswith("to _INBOX.aBc, nor to 1 other.")
    assert ours.sentence("X", 29).endswith("to _INBOX.aBc, nor to 29 others.")
    foreign = read_denial(words, {"other": "OTHER"})
    assert foreign is not None
    assert foreign.sentence("X").endswith("to _inbox.abc.")


@pytest.mark.parametrize(
    ("words", "is_final"),
    [
        ("nats: 'Authorization Violation'", True),
        ("nats: user authentication expired", True),
        ("nats: authentication timeout", False),  # of a machine that is slow
        ("nats: stale connection", False),
    ],
)
def test_whom_the_server_does_not_know_is_told_from_who_was_slow(words: str, *, is_final: bool) -> None:
    assert is_of_credentials(Exception(words)) is is_final
