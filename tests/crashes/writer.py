"""An application that outlives crashes: run by the Python that has libnbd, a process of its own, and knowing nothing of Cutover.

Several reads, writes and flushes are under way at a time, on random blocks. When the connection breaks it connects again as
soon as somebody answers, reads the whole volume, compares it with what was acknowledged, and goes on. A line on standard input
ends it; then it prints what it knows as JSON. Many times a second it prints how far it is.

    python -m tests.crashes.writer URI SEED BLOCKS [--power]

With `--power` a broken connection means that the power was cut: only what was flushed must be there.
"""

import errno
import json
import random
import select
import sys
import time
from collections.abc import Callable

import nbd  # type: ignore[import-not-found,unused-ignore] # of the system's Python

from tests.crashes.blocks import BLOCK_BYTES, Knowledge, content

DEPTH = 6
FLUSHES = 0.03  # of all operations
READS = 0.3
TELL_EVERY_S = 0.05
RETRY_S = 0.02
POLL_MS = 20
WRONG_KEPT_MAX = 20
CHECK_BLOCKS = 64  # read at once
SHUT_DOWN = frozenset({errno.ESHUTDOWN, errno.ENOTCONN})


class Writer:
    """One volume, over as many connections as it takes."""

    def __init__(self, uri: str, seed: int, blocks: int, *, power: bool) -> None:
        self.known = Knowledge(blocks)
        self.operations = 0
        self.lives = 0
        self.wrong: list[str] = []
        self.errors: list[str] = []
        self._uri = uri
        self._power = power
        self._chance = random.Random(seed)
        self._blocks = range(blocks)
        self._stamp = 0
        self._busy: set[int] = set()
        self._handle = nbd.NBD()
        self._told = 0.0

    # ------------------------------------------------------------------ its life

    def live(self) -> None:
        while not is_asked_to_stop():
            if not self._connected():
                time.sleep(RETRY_S)
                continue
            try:
                self._check_all(after_power_cut=self._power and self.lives > 0)
            except nbd.Error:
                continue  # gone again
            self.lives += 1
            self._work()
            self.tell()

    def _connected(self) -> bool:
        self._handle = nbd.NBD()
        try:
            self._handle.connect_uri(self._uri)
        except nbd.Error:
            return False
        return True

    def _check_all(self, *, after_power_cut: bool) -> None:
        found = {
            first: bytes(self._handle.pread(CHECK_BLOCKS * BLOCK_BYTES, first * BLOCK_BYTES))
            for first in self._blocks[::CHECK_BLOCKS]
        }
        for block in self._blocks:
            at = block % CHECK_BLOCKS * BLOCK_BYTES
            data = found[block - block % CHECK_BLOCKS][at : at + BLOCK_BYTES]
            wrong = self.known.wrong_in(block, data, after_power_cut=after_power_cut)
            if wrong:
                self._complain(f"connection {self.lives + 1}: {wrong}")
            else:
                self.known.settle(block, data)

    def _work(self) -> None:
        self._busy.clear()
        try:
            while self._handle.aio_is_ready() and not is_asked_to_stop():
                while len(self._busy) < DEPTH and self._handle.aio_is_ready():
                    self._begin_something()
                self._wait()
            while self._busy and self._handle.aio_is_ready():
                self._wait()
            if self._handle.aio_is_ready():
                before = self.known.flush_begins()
                self._handle.flush()
                self.known.flush_is_done(before)
                self._handle.shutdown()
        except nbd.Error as error:
            if self._handle.aio_is_ready():
                self.errors.append(str(error))

    def _wait(self) -> None:
        self._handle.poll(POLL_MS)
        if time.monotonic() - self._told > TELL_EVERY_S:
            self.tell()

    # ------------------------------------------------------------------ one operation

    def _begin_something(self) -> None:
        draw = self._chance.random()
        if draw < FLUSHES and -1 not in self._busy:
            self._flush()
            return
        block = self._chance.choice(self._blocks)
        if block in self._busy:
            return
        if draw < FLUSHES + READS:
            self._read(block)
        else:
            self._write(block)

    def _flush(self) -> None:
        before = self.known.flush_begins()
        self._begin(-1, self._handle.aio_flush, lambda: self.known.flush_is_done(before))

    def _read(self, block: int) -> None:
        buffer = nbd.Buffer(BLOCK_BYTES)

        def check() -> None:
            wrong = self.known.wrong_in(block, bytes(buffer.to_bytearray()))
            if wrong:
                self._complain(wrong)

        self._begin(block, self._handle.aio_pread, check, buffer, block * BLOCK_BYTES)

    def _write(self, block: int) -> None:
        self._stamp += 1
        stamp = self._stamp
        self.known.issued[block] = stamp
        buffer = nbd.Buffer.from_bytearray(bytearray(content(block, stamp)))

        def acknowledge() -> None:
            self.known.acknowledged[block] = stamp

        self._begin(block, self._handle.aio_pwrite, acknowledge, buffer, block * BLOCK_BYTES)

    def _begin(
        self, block: int, start: Callable[..., object], done: Callable[[], None], *arguments: object
    ) -> None:
        self._busy.add(block)

        def completed(error: object) -> int:
            self._busy.discard(block)
            number = int(error.value)  # type: ignore[attr-defined]
            if not number:
                self.operations += 1
                done()
            elif number not in SHUT_DOWN and self._handle.aio_is_ready():
                self.errors.append(f"block {block}: {errno.errorcode.get(number, number)}")
            return 1

        start(*arguments, completion=completed)

    # ------------------------------------------------------------------ what it says

    def _complain(self, wrong: str) -> None:
        if len(self.wrong) < WRONG_KEPT_MAX:
            self.wrong.append(wrong)

    def tell(self) -> None:
        self._told = time.monotonic()
        say({"operations": self.operations, "lives": self.lives})

    def report(self) -> dict[str, object]:
        return {
            "operations": self.operations,
            "lives": self.lives,
            "wrong": self.wrong,
            "errors": self.errors[:WRONG_KEPT_MAX],
            "acknowledged": self.known.acknowledged,
            "flushed": self.known.flushed,
            "issued": self.known.issued,
        }


def is_asked_to_stop() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    uri, seed, blocks = sys.argv[1:4]
    writer = Writer(uri, int(seed), int(blocks), power="--power" in sys.argv[4:])
    writer.live()
    say(writer.report())


if __name__ == "__main__":
    main()
