"""Many seeds, on all cores: their counts, and those that went wrong."""

import gc
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.simulation.simulation import Outcome, run

_CHUNK = 8


@dataclass(slots=True)
class Campaign:
    """What came of many seeds."""

    seeds: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    took_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, str] = field(default_factory=dict)

    @property
    def seeds_per_s(self) -> float:
        return self.seeds / self.took_s if self.took_s else 0.0

    def add(self, outcome: Outcome) -> None:
        """Take one more in."""
        self.seeds += 1
        self.steps += outcome.steps
        self.virtual_s += outcome.virtual_s
        self.counts.update(outcome.counts)
        if outcome.wrong:
            self.wrong[outcome.seed] = outcome.wrong


def campaign(seeds: Iterable[int], *, stop_at_first: bool = False) -> Campaign:
    """Run them all; with `stop_at_first`, until one goes wrong."""
    result = Campaign()
    began = time.monotonic()
    with multiprocessing.get_context("fork").Pool(os.cpu_count(), gc.freeze) as pool:
        for outcome in pool.imap_unordered(run, seeds, chunksize=_CHUNK):
            result.add(outcome)
            if outcome.wrong and stop_at_first:
                pool.terminate()
                break
    result.took_s = time.monotonic() - began
    return result
