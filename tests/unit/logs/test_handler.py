"""Logging holds up nobody, raises nothing, and leaves nothing out without saying so."""

import io
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any, TextIO, cast

import pytest

from shared.logs.flood import LINES_MAX
from shared.logs.handler import LineHandler
from shared.logs.writer import LINES_MAX as WAITING_MAX
from shared.logs.writer import Writer


class Kept(io.StringIO):
    """A stream whose content outlives it."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


def said(message: str, *values: object, **about: object) -> logging.LogRecord:
    """A record, made as a logger makes it."""
    logger = logging.getLogger("tests.logs")
    return logger.makeRecord("x", logging.INFO, __file__, 1, message, values, None, extra=about)


def writing_to(stream: TextIO) -> LineHandler:
    return LineHandler("json", Writer(stream))


def test_lines_are_written_in_their_order() -> None:
    kept = Kept()
    handler = writing_to(kept)
    for number in range(5):
        handler.handle(said("line of %s", number, migration=f"vol{number}"))
    handler.close()
    assert [line["migration"] for line in kept.lines] == [f"vol{number}" for number in range(5)]


def test_a_flood_leaves_some_lines_and_a_count() -> None:
    kept = Kept()
    handler = writing_to(kept)
    for _ in range(LINES_MAX + 30):
        handler.handle(said("%s is connected", "fio", migration="vol1"))
    handler.handle(said("the target failed", migration="vol1"))
    handler.close()
    messages = [line["message"] for line in kept.lines]
    assert messages.count("fio is connected") == LINES_MAX
    assert "the target failed" in messages
    assert messages[-1].startswith("30 more lines like «%s is connected» were left out")
    assert kept.lines[-1]["migration"] == "vol1"


@pytest.fixture
def stuck() -> Iterator[tuple[TextIO, IO[bytes]]]:
    """A pipe that nobody reads, and its other end."""
    read_fd, write_fd = os.pipe()
    with suppress(BrokenPipeError), os.fdopen(write_fd, "w") as stream, os.fdopen(read_fd, "rb") as reader:
        yield stream, reader  # its reader is closed first: whoever waits to write to it waits no more


def test_a_reader_that_is_stuck_holds_up_nobody_and_what_is_lost_is_told(
    stuck: tuple[TextIO, IO[bytes]],
) -> None:
    """Failing, the first line that does not fit the pipe waits for ever, and with it the event loop."""
    stream, reader = stuck
    handler = writing_to(stream)
    count = 3 * WAITING_MAX
    began = time.monotonic()
    for number in range(count):
        handler.handle(said("line of %s", number, migration=f"vol{number}"))
    assert time.monotonic() - began < 10
    accounted = 0
    for _ in range(WAITING_MAX):  # someone reads again
        accounted += accounted_for(reader.readline())
    handler.handle(said("one more", migration="more"))
    while accounted < count:
        accounted += accounted_for(reader.readline())
    assert accounted == count


def accounted_for(line: bytes) -> int:
    """How many of the numbered lines one line stands for."""
    message = json.loads(line)["message"]
    if message.startswith("line of"):
        return 1
    return int(message.split()[0]) if "were lost" in message else 0


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(32, "Broken pipe")


def test_a_stream_that_takes_nothing_raises_nothing() -> None:
    handler = writing_to(Closed())
    for _ in range(3):
        handler.handle(said("x"))
    handler.close()


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@pytest.mark.parametrize("extra", [{}, {"migration": Unshowable()}, {"host": 7}, {"attempt": Unshowable()}])
def test_whatever_is_logged_nothing_is_raised_and_a_line_says_so(extra: dict[str, object]) -> None:
    kept = Kept()
    handler = writing_to(kept)
    handler.handle(said("of %s", Unshowable(), **extra))
    handler.close()
    assert len(kept.lines) == 1
    assert "cannot be shown" in kept.lines[0]["message"] or "could not be made" in kept.lines[0]["message"]


def test_closing_waits_not_for_ever_for_a_reader(stuck: tuple[TextIO, IO[bytes]]) -> None:
    writer = Writer(stuck[0])
    for _ in range(WAITING_MAX * 2):
        writer.write("x" * 64)
    began = time.monotonic()
    writer.stop(0.1)
    assert time.monotonic() - began < 5


def test_streams_are_only_written_to() -> None:
    """The writer's thread and the program share the stream: it stays open for what the program itself has to say."""
    kept = Kept()
    writer = Writer(cast("TextIO", kept))
    writer.write("a")
    writer.stop()
    assert not kept.closed
