"""`python -m tests.simulation.mutations.hunt FIRST`: look for a seed in which something is found, and print both as JSON.

Runs inside a copy of the product that is broken. Begins with the seed FIRST, and goes round through all of `SEEDS`.
"""

import json
import sys

from tests.simulation.simulation import run

SEEDS = 2000
# What the simulation finds. Anything else, an exception of the broken code for one, is an accident and proves nothing.
FINDINGS = ("WrongDataError: ", "BrokenRuleError: ")


def hunt(first: int) -> tuple[int, str] | None:
    """The first seed in which something is found, and what; none if there is none."""
    for number in range(SEEDS):
        seed = (first + number) % SEEDS
        if (wrong := run(seed).wrong).startswith(FINDINGS):
            return seed, wrong
    return None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(hunt(int(sys.argv[1]))))
