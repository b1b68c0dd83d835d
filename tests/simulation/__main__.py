"""`python -m tests.simulation --seeds N [--first N]` runs many seeds, `--seed N` replays one and tells all of it.

The status is 1 if a seed went wrong, or if `--seeds` is at least what CI runs and something was never reached.
"""

import argparse
import sys

from tests.simulation.campaign import Campaign, campaign
from tests.simulation.coverage import REQUIRED, missing
from tests.simulation.simulation import run

CI_SEEDS = 2000


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=CI_SEEDS, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="replay this one")
    asked = parser.parse_args()
    if asked.seed is not None:
        return _replay(asked.seed)
    return _report(campaign(range(asked.first, asked.first + asked.seeds)))


def _replay(seed: int) -> int:
    outcome = run(seed, lambda at_s, line: print(f"{at_s:10.4f}  {line}"))
    print(
        f"seed {seed}: {outcome.wrong or 'nothing is wrong'}; {outcome.steps} steps, digest {outcome.digest[:16]}"
    )
    return 1 if outcome.wrong else 0


def _report(result: Campaign) -> int:
    for name in sorted({*result.counts, *REQUIRED}):
        print(f"{result.counts[name]:>9}  {name}")
    never = missing(result.counts) if result.seeds >= CI_SEEDS else []
    for name in never:
        print(f"never reached: {name}")
    for seed, wrong in sorted(result.wrong.items()):
        print(f"seed {seed}: {wrong}   (make sim SEED={seed})")
    print(
        f"{result.seeds} seeds, {result.seeds_per_s:.1f} a second; {result.steps} steps, "
        f"{result.virtual_s / 3600:.1f} hours of their own; {len(result.wrong)} went wrong"
    )
    return 1 if result.wrong or never else 0


if __name__ == "__main__":
    sys.exit(main())
