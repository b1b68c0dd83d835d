"""An application on an NBD volume, a process of its own: run by the Python that has libnbd, and knowing nothing of Cutover.

Writes and reads back without pause, one block after the other, by one or several connections, and remembers what was
acknowledged. A line on standard input ends it; then it prints what it knows as JSON. Every tenth of a second or so it prints
how many operations it has done.

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


def content(number: int, stamp: int) -> bytes:
    """A block's content: says which block it is and when it was written."""
    return f"block {number} stamp {stamp} ".encode().ljust(64, b".") * (BLOCK_BYTES // 64)


def main() -> None:
    uri, seed, first, blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    chance = random.Random(seed)
    handle = nbd.NBD()
    handle.connect_uri(uri)
    acknowledged: dict[int, int] = {}
    errors: list[str] = []
    latencies_ms: list[float] = []
    operations = stamp = 0
    told = time.monotonic()
    print(json.dumps({"operations": 0}), flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        number = first + chance.randrange(blocks)
        began = time.monotonic()
        try:
            if chance.random() < 0.6:
                stamp += 1
                acknowledged.pop(number, None)  # whether a write that fails was done is not known
                handle.pwrite(content(number, stamp), number * BLOCK_BYTES)
                acknowledged[number] = stamp
            elif number in acknowledged:
                found = bytes(handle.pread(BLOCK_BYTES, number * BLOCK_BYTES))
                if found != content(number, acknowledged[number]):
                    errors.append(f"block {number} is not of stamp {acknowledged[number]}: {found[:40]!r}")
            if chance.random() < 0.02:
                handle.flush()
        except nbd.Error as error:
            errors.append(str(error))
            if not handle.aio_is_ready():
                break
        ended = time.monotonic()
        latencies_ms.append((ended - began) * 1000)
        operations += 1
        if ended - told > TELL_EVERY_S:
            told = ended
            print(json.dumps({"operations": operations}), flush=True)
    if handle.aio_is_ready():
        handle.flush()
        handle.shutdown()
    latencies_ms.sort()
    p99 = latencies_ms[int(len(latencies_ms) * 0.99)] if latencies_ms else 0.0
    print(
        json.dumps(
            {
                "operations": operations,
                "acknowledged": {str(number): value for number, value in acknowledged.items()},
                "errors": errors[:20],
                "p99_ms": p99,
                "worst_ms": latencies_ms[-1] if latencies_ms else 0.0,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
