"""What a service tells of itself and of its refusals to tools that know nothing of Cutover."""

from shared.bus.answering import refused
from shared.bus.micro import ERROR_CODE_HEADER, ERROR_HEADER, error_headers
from shared.migration.refusals import Code, Refusal


def test_no_refusal_carries_a_line_break_or_an_escape_in_its_headers() -> None:
    """The stock program prints headers as they are."""
    refusal = Refusal(Code.BAD_REQUEST, "a\r\nNats-Rollup: all\x1b[2J\x00 \x9bb")
    assert error_headers(refused(refusal)) == {
        ERROR_CODE_HEADER: "bad-request",
        ERROR_HEADER: "a Nats-Rollup: all\\x1b[2J\\x00 \\x9bb",
    }
