"""An application on an NBD volume, a process of its own: run by the Python that has libnbd, and knowing nothing of Cutover.

Writes and reads back without pause, and remembers what was acknowledged. A line on standard input ends it; then it prints
what it knows as JSON. Many times a second it prints how many operations it has done.

    nbd_application.py URI SEED FIRST_BLOCK BLOCKS
"""

import json
import random
import select
import sys
import time

import nbd  # type: ignore[import-not-found,unused-ignore] # of the system's Python

BLOCK_BYTES = 4096
TELL_EVERY_S = 0.05
WRITES = 0.6  # of all operations; the rest are reads
FLUSHES = 0.02
ERRORS_KEPT_MAX = 20


def content(number: int, stamp: int) -> bytes:
    """A block's content: says which block it is and when it was written."""
    return f"block {number} stamp {stamp} ".encode().ljust(64, b".") * (BLOCK_BYTES // 64)


class Work:
    """One connection, and what was acknowledged on it."""

    def __init__(self, uri: str, seed: int, first: int, blocks: int) -> None:
        self.acknowledged: dict[int, int] = {}
        self.errors: list[str] = []
        self.latencies_ms: list[float] = []
        self._chance = random.Random(seed)
        self._numbers = range(first, first + blocks)
        self._stamp = 0
        self._handle = nbd.NBD()
        self._handle.set_uri_allow_local_file(True)  # certificates that a URI names
        self._handle.connect_uri(uri)

    def is_connected(self) -> bool:
        return bool(self._handle.aio_is_ready())

    def step(self) -> None:
        """One operation, timed."""
        number = self._chance.choice(self._numbers)
        began = time.monotonic()
        try:
            if self._chance.random() < WRITES:
                self._write(number)
            elif number in self.acknowledged:
                self._check(number)
            if self._chance.random() < FLUSHES:
                self._handle.flush()
        except nbd.Error as error:
            self.errors.append(str(error))
        self.latencies_ms.append((time.monotonic() - began) * 1000)

    def end(self) -> None:
        try:
            if self.is_connected():
                self._handle.flush()
                self._handle.shutdown()
        except nbd.Error as error:
            self.errors.append(str(error))

    def report(self) -> dict[str, object]:
        latencies = sorted(self.latencies_ms) or [0.0]
        return {
            "operations": len(self.latencies_ms),
            "acknowledged": {str(number): stamp for number, stamp in self.acknowledged.items()},
            "errors": self.errors[:ERRORS_KEPT_MAX],
            "p99_ms": latencies[int(len(latencies) * 0.99)],
            "worst_ms": latencies[-1],
        }

    def _write(self, number: int) -> None:
        self._stamp += 1
        self.acknowledged.pop(number, None)  # whether a write that fails was done is not known
        self._handle.pwrite(content(number, self._stamp), number * BLOCK_BYTES)
        self.acknowledged[number] = self._stamp

    def _check(self, number: int) -> None:
        found = bytes(self._handle.pread(BLOCK_BYTES, number * BLOCK_BYTES))
        stamp = self.acknowledged[number]
        if found != content(number, stamp):
            self.errors.append(f"block {number} is not of stamp {stamp}: {found[:40]!r}")


def main() -> None:
    work = Work(sys.argv[1], *(int(each) for each in sys.argv[2:5]))
    tell({"operations": 0})
    told = time.monotonic()
    while work.is_connected() and not select.select([sys.stdin], [], [], 0)[0]:
        work.step()
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            tell({"operations": len(work.latencies_ms)})
    work.end()
    tell(work.report())


def tell(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
