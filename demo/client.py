"""The application of the demonstration: an NBD client that writes and reads back without pause, and trusts nobody.

A program of its own, run by Debian's Python because libnbd's module lives there; it shares no line with Cutover. It keeps a list
of every write that was acknowledged, in the order of the acknowledgements:

    w BLOCK SEQUENCE      the write of this sequence number to this 4 KiB block was acknowledged
    f                     a flush succeeded
    m NAME NEXT           the demonstration set a mark; the next write to be sent has the number NEXT

Standard input takes `step NAME`, `mark NAME` and `stop`; its end means stop. Standard output tells, a JSON object a line,
what was done since the last one. In `--digests` mode it only reads, and compares every piece with what it has to be.

usage: python -m demo.client URI LIST --run N --extents OFFSET:LENGTH…  [--depth N]
       python -m demo.client URI LIST --digests FILE --size BYTES       [--depth N]
"""

import argparse
import hashlib
import json
import os
import random
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbd  # type: ignore[import-not-found,unused-ignore]  # libnbd, of /usr/bin/python3 alone

from demo.blocks import BLOCK_BYTES, PIECE_BYTES, block_bytes, sequence_in

REPORT_EVERY_S = 0.5
FLUSH_EVERY_S = 1.0
READ_SHARE = 0.3
MISMATCHES_TOLD = 5


class Writer:
    """Writes random blocks of the extents, and reads back what was acknowledged."""

    size = BLOCK_BYTES

    def __init__(self, run: int, extents: list[tuple[int, int]], listing: Any) -> None:
        self.run = run
        self.blocks = [
            b
            for offset, length in extents
            for b in range(offset // BLOCK_BYTES, (offset + length) // BLOCK_BYTES)
        ]
        self.sequence_of = dict.fromkeys(self.blocks, 0)
        self.busy: set[int] = set()
        self.next_sequence = 1
        self.listing = listing
        self.random = random.Random(run)
        self.wrong: list[str] = []

    def pick(self) -> tuple[str, int]:
        """The next request: what to do, and with which block. No block has two requests in flight."""
        block = self.random.choice(self.blocks)
        while block in self.busy:
            block = self.random.choice(self.blocks)
        self.busy.add(block)
        return ("read" if self.random.random() < READ_SHARE else "write"), block

    def payload(self, block: int) -> tuple[int, bytes]:
        """A new version of the block."""
        sequence = self.next_sequence
        self.next_sequence += 1
        return sequence, block_bytes(self.run, block, sequence)

    def written(self, block: int, sequence: int) -> None:
        """The write was acknowledged: from now on nothing older may be read."""
        self.sequence_of[block] = sequence
        self.listing.write(f"w {block} {sequence}\n")
        self.busy.discard(block)

    def was_read(self, block: int, data: bytes) -> None:
        """Compare with what was acknowledged last."""
        expected = self.sequence_of[block]
        if data != block_bytes(self.run, block, expected):
            found = sequence_in(self.run, block, data)
            self.wrong.append(
                f"block {block} should hold write {expected} and holds {found or 'no whole write'}"
            )
        self.busy.discard(block)


class Verifier:
    """Reads whole pieces and compares their digests; never writes."""

    size = PIECE_BYTES

    def __init__(self, digests: list[str], size_bytes: int) -> None:
        self.digests = digests
        self.size_bytes = size_bytes
        self.next_sequence = 1
        self.random = random.Random(0)
        self.wrong: list[str] = []

    def pick(self) -> tuple[str, int]:
        """Any piece."""
        return "read", self.random.randrange(len(self.digests))

    def was_read(self, piece: int, data: bytes) -> None:
        """Compare with the digest that the source had before."""
        if hashlib.sha256(data).hexdigest() != self.digests[piece]:
            self.wrong.append(
                f"the {len(data)} bytes at {piece * PIECE_BYTES} differ from what the source held"
            )


class Meter:
    """What was done in the running step, and since the last report."""

    def __init__(self) -> None:
        self.step = "setup"
        self._clear()

    def _clear(self) -> None:
        self.began = time.monotonic()
        self.counts = {"read": 0, "write": 0, "flush": 0}
        self.worst_s = 0.0

    def count(self, what: str, began: float) -> None:
        """One request is done."""
        self.counts[what] += 1
        self.worst_s = max(self.worst_s, time.monotonic() - began)

    def report(self, oldest_began: float | None, wrong: list[str]) -> None:
        """Say it and begin anew. A request that is still under way counts with the time that it has taken so far."""
        now = time.monotonic()
        worst_s = max(self.worst_s, now - oldest_began if oldest_began is not None else 0.0)
        tell(
            step=self.step,
            seconds=round(now - self.began, 4),
            reads=self.counts["read"],
            writes=self.counts["write"],
            flushes=self.counts["flush"],
            worst_ms=round(worst_s * 1000, 2),
            wrong=wrong[:MISMATCHES_TOLD],
        )
        self._clear()


def tell(**what: Any) -> None:
    """One line to the demonstration."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Client:
    """Keeps several requests in flight on one connection until it is told to stop."""

    def __init__(self, handle: Any, work: Writer | Verifier, listing: Any, depth: int) -> None:
        self.handle = handle
        self.work = work
        self.listing = listing
        self.depth = depth
        self.meter = Meter()
        self.began: dict[int, float] = {}  # by the number of the request
        self.number = 0
        self.stopping = False
        self.failed: list[str] = []
        self.flush_due = time.monotonic() + FLUSH_EVERY_S
        self.report_due = time.monotonic() + REPORT_EVERY_S
        self.typed = b""

    def run(self) -> int:
        """Until `stop`, then until nothing is in flight; one more flush, and the exit status."""
        poller = select.poll()
        poller.register(sys.stdin.fileno(), select.POLLIN)
        poller.register(self.handle.aio_get_fd(), select.POLLIN)
        while not (self.stopping and not self.began):
            self._fill()
            self._turn(poller)
            self._on_time()
        if isinstance(self.work, Writer) and not self.failed:
            self.handle.flush()
            self.listing.write("f\n")
        self.listing.flush()
        os.fsync(self.listing.fileno())
        self.meter.report(None, self.wrong())
        self.handle.shutdown()
        return 1 if self.wrong() else 0

    def wrong(self) -> list[str]:
        """What failed, and what was read and should not have been."""
        return self.failed + self.work.wrong

    def _fill(self) -> None:
        while not self.stopping and len(self.began) < self.depth:
            what, where = self.work.pick()
            if what == "write":
                self._write(where)
            else:
                self._read(where)

    def _write(self, block: int) -> None:
        assert isinstance(self.work, Writer)  # noqa: S101 - only a writer picks writes
        work = self.work
        sequence, data = work.payload(block)
        buffer = nbd.Buffer.from_bytearray(bytearray(data))
        self._start(
            "write",
            lambda done: self.handle.aio_pwrite(buffer, block * BLOCK_BYTES, completion=done),
            lambda: work.written(block, sequence),
        )

    def _read(self, where: int) -> None:
        offset = where * self.work.size
        length = min(self.work.size, getattr(self.work, "size_bytes", offset + self.work.size) - offset)
        buffer = nbd.Buffer(length)
        self._start(
            "read",
            lambda done: self.handle.aio_pread(buffer, offset, completion=done),
            lambda: self.work.was_read(where, bytes(buffer.to_bytearray())),
        )

    def _flush(self) -> None:
        self._start(
            "flush", lambda done: self.handle.aio_flush(completion=done), lambda: self.listing.write("f\n")
        )

    def _start(self, what: str, start: Callable[[Any], object], then: Callable[[], object]) -> None:
        self.number += 1
        number = self.number
        began = self.began[number] = time.monotonic()

        def done(error: Any) -> int:
            del self.began[number]
            if error.value:
                self.failed.append(f"a {what} failed: {os.strerror(error.value)}")
                self.stopping = True
            else:
                self.meter.count(what, began)
                then()
            return 1

        start(done)

    def _turn(self, poller: Any) -> None:
        direction = self.handle.aio_get_direction()
        events = (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0) | (
            select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0
        )
        poller.modify(self.handle.aio_get_fd(), events)
        for descriptor, ready in poller.poll(100):
            if descriptor == sys.stdin.fileno():
                self._listen()
            elif ready & (select.POLLIN | select.POLLHUP) and direction & nbd.AIO_DIRECTION_READ:
                self.handle.aio_notify_read()
            elif ready & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
                self.handle.aio_notify_write()
        if self.handle.aio_is_dead() or self.handle.aio_is_closed():
            raise ConnectionError("the connection to the volume broke")

    def _listen(self) -> None:
        got = os.read(sys.stdin.fileno(), 4096)
        self.stopping = self.stopping or not got
        *lines, self.typed = (self.typed + got).split(b"\n")
        for line in lines:
            word, _, name = line.decode().partition(" ")
            if word == "stop":
                self.stopping = True
            elif word == "mark":
                self.listing.write(f"m {name} {self.work.next_sequence}\n")
                self.listing.flush()
                tell(mark=name)
            elif word == "step":
                self.meter.report(self._oldest(), self.wrong())
                self.meter.step = name

    def _on_time(self) -> None:
        now = time.monotonic()
        if now >= self.flush_due and not self.stopping:
            self.flush_due = now + FLUSH_EVERY_S
            if isinstance(self.work, Writer):
                self._flush()
        if now >= self.report_due:
            self.report_due = now + REPORT_EVERY_S
            self.listing.flush()
            self.meter.report(self._oldest(), self.wrong())

    def _oldest(self) -> float | None:
        return min(self.began.values(), default=None)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Write and read back without pause, and keep a list of what was acknowledged."
    )
    parser.add_argument("uri")
    parser.add_argument("listing", type=Path)
    parser.add_argument("--run", type=int, default=0)
    parser.add_argument("--extents", nargs="*", default=[])
    parser.add_argument("--digests", type=Path)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--depth", type=int, default=8)
    return parser.parse_args(arguments)


def main() -> int:
    """Connect, say so, work."""
    options = parse(sys.argv[1:])
    handle = nbd.NBD()
    handle.connect_uri(options.uri)
    with options.listing.open("w") as listing:
        work: Writer | Verifier
        if options.digests is not None:
            work = Verifier(json.loads(options.digests.read_text()), options.size)
        else:
            pairs = [extent.split(":") for extent in options.extents]
            work = Writer(options.run, [(int(offset), int(length)) for offset, length in pairs], listing)
        tell(connected=True, size=handle.get_size())
        client = Client(handle, work, listing, options.depth)
        try:
            return client.run()
        except (nbd.Error, ConnectionError) as error:
            client.failed.append(str(error))
            client.meter.report(None, client.wrong())
            return 1


if __name__ == "__main__":
    sys.exit(main())
