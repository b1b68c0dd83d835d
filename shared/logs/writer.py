"""Writes lines in a thread of its own: who reads a log slowly, or not at all, holds up nobody.

A pipe that nobody empties would otherwise stop the event loop in the middle of a line, and with it every volume.
"""

import queue
import threading
from typing import TextIO

LINES_MAX = 8192  # that wait to be written; beyond that they are counted and lost
STOP_TIMEOUT_S = 2.0


class Writer:
    """One stream."""

    def __init__(self, stream: TextIO) -> None:
        """Begin to write; the stream stays the caller's."""
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._refused = 0  # lines for which there was no room; counted by those who write
        self._unwritten = 0  # lines that the stream did not take; counted by the thread
        self._told = 0
        # A daemon: a reader that is stuck for good does not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Have a line written. Returns at once."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._refused += 1

    def take_lost(self) -> int:
        """How many lines were lost since this was asked last; nothing while there is still no room to tell of it."""
        lost = self._refused + self._unwritten - self._told
        if lost and self._lines.full():
            return 0
        self._told += lost
        return lost

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Write what waits, for as long as that is worth waiting for."""
        try:
            self._lines.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (
                OSError,
                ValueError,
            ):  # the stream is closed, or full: there is nowhere to say so but in a later line
                self._unwritten += 1
