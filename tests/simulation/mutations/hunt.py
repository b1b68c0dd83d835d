"""`python -m tests.simulation.mutations.hunt FIRST`: look for a seed that goes wrong, and print it and what went wrong as JSON.

Runs inside a copy of the product that is broken. Begins with the seed FIRST, and goes round through all of `SEEDS`.
"""

import json
import sys

from tests.simulation.simulation import run

SEEDS = 2000


def hunt(first: int) -> tuple[int, str] | None:
    """The first seed that goes wrong, and in what; none if none does."""
    for number in range(SEEDS):
        seed = (first + number) % SEEDS
        if wrong := run(seed).wrong:
            return seed, wrong
    return None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(hunt(int(sys.argv[1]))))
