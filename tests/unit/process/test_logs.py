"""What came from the wire is in the log as text, never as an escape sequence or a line of its own."""

import io
import logging
from collections.abc import Iterator

import pytest

from shared.process import set_up_logging

HOSTILE = "x\x1b[2J\n2026-01-01T00:00:00.000Z CRITICAL forged: all is lost\r\u202e\x9b31m"
SHOWN = "x\\x1b[2J\\n2026-01-01T00:00:00.000Z CRITICAL forged: all is lost\\r\\u202e\\x9b31m"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, by the logging of a service."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    set_up_logging()
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def test_a_message_is_one_line_in_which_nothing_is_obeyed(said: io.StringIO) -> None:
    logging.getLogger("a").warning("%s is connected to %s", HOSTILE, "vol1")
    line, end = said.getvalue().split("\n")
    assert line.endswith(f"WARNING a: {SHOWN} is connected to vol1")
    assert not end


def test_a_traceback_begins_no_line_that_looks_like_the_logs(said: io.StringIO) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("a").exception("it failed")
    first, *others = said.getvalue().rstrip("\n").split("\n")
    assert first.endswith("ERROR a: it failed")
    assert all(line.startswith("  ") for line in others)
    assert any("CRITICAL forged" in line for line in others)
    assert not set(said.getvalue()) & set("\x1b\r\x9b\u202e")


def test_what_people_write_stays_as_it_is(said: io.StringIO) -> None:
    logging.getLogger("a").info("«Größe»: 5 %")
    assert "INFO a: «Größe»: 5 %\n" in said.getvalue()
