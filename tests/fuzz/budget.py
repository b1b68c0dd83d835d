"""How long is fuzzed, and where it begins: `FUZZ_SECONDS` and `FUZZ_SEED`. One seed is one session: a failure names its own."""

import os
import time
from collections.abc import Iterator

SECONDS = 20.0  # ordinarily, all fuzzing together


def seeds(share: float) -> Iterator[int]:
    """Seeds for a share of the time; at least one."""
    first = int(os.environ.get("FUZZ_SEED", "1"))
    seconds = float(os.environ.get("FUZZ_SECONDS", str(SECONDS))) * share
    end = time.monotonic() + seconds
    seed = first
    while True:
        yield seed
        seed += 1
        if time.monotonic() > end:
            return
