"""Puts the parts together: a logging handler that makes lines, holds back floods, and hands them to the writer."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from shared.config.model import LogConfig
from shared.logs.about import PROCESS
from shared.logs.flood import LINES_MAX, WINDOW_S, Flood
from shared.logs.lines import LINES
from shared.logs.writer import Writer


class _Kind(NamedTuple):
    """What makes two lines alike."""

    logger: str
    level: int
    template: str
    migration: str


class LineHandler(logging.Handler):
    """Writes each record as one line of the configured format. Never raises, and never waits."""

    def __init__(self, line_format: str, writer: Writer) -> None:
        """`line_format` is one of `LINES`."""
        super().__init__()
        self._line = LINES[line_format]
        self._writer = writer
        self._flood: Flood[_Kind] = Flood()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            now_s = time.monotonic()
            kind = _Kind(record.name, record.levelno, str(record.msg), getattr(record, "migration", ""))
            self._tell_left_out(now_s)
            if self._flood.admits(kind, now_s):
                self._writer.write(self._line(record, PROCESS))
            if lost := self._writer.take_lost():
                self._say(
                    logging.WARNING,
                    f"{lost} lines of this log were lost: whoever takes them does not keep up",
                )
        except Exception:  # noqa: BLE001 - no log line is worth an exception in whoever writes it
            self._say(record.levelno, f"a line of the log, by {record.name}, could not be made")

    def close(self) -> None:
        """Write what is left to say."""
        self._tell_left_out(None)
        self._writer.stop()
        super().close()

    def _tell_left_out(self, now_s: float | None) -> None:
        for kind, count in self._flood.left_out(now_s):
            limit = f"more than {LINES_MAX} in {WINDOW_S:g} s"
            message = f"{count} more lines like «{kind.template}» were left out: {limit}"
            self._say(kind.level, message, kind.migration)

    def _say(self, level: int, message: str, migration: str = "") -> None:
        record = logging.LogRecord(__name__, level, __file__, 0, "%s", (message,), None)
        record.migration = migration
        self._writer.write(self._line(record, PROCESS))


@contextmanager
def logging_to_stderr(config: LogConfig, service: str, *, host: str = "") -> Iterator[None]:
    """Log to standard error for as long as the context is open."""
    PROCESS.service, PROCESS.host = service, host
    handler = LineHandler(config.format, Writer(sys.stderr))
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
