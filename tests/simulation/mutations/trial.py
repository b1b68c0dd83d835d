"""The trial of a mutation: a copy of the product with the break in it, and the simulation run there, until a seed finds it.

`python -m tests.simulation.mutations.trial [NAME...]` tries all mutations, or those named, from seed 0 on, and prints for each
the seed and what it found there. With `--json` each begins at the seed that is recorded for it, and tests can read the outcome.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.mutations.mutation import Mutation
from tests.simulation.mutations.table import MUTATIONS

ROOT = Path(__file__).resolve().parents[3]
COPIED = ("services", "shared", "tests/simulation")


@dataclass(frozen=True, slots=True)
class Found:
    """A seed in which the break shows, and how."""

    seed: int
    wrong: str


def try_out(mutation: Mutation, *, first_seed: int) -> Found | None:
    """Break a copy, and have the simulation look for it; none where it finds nothing.

    Raises:
        OutdatedMutationError: the product is not written as the mutation expects.
        CalledProcessError: the simulation itself did not run.
    """
    with tempfile.TemporaryDirectory(prefix="cutover-mutation-") as directory:
        copy = Path(directory)
        for part in COPIED:
            shutil.copytree(ROOT / part, copy / part)  # with what is compiled, which stays valid
        shutil.copy2(ROOT / "tests/__init__.py", copy / "tests")
        mutation.apply(copy)
        command = [
            "nice",
            "-n",
            "19",
            sys.executable,
            "-m",
            "tests.simulation.mutations.hunt",
            str(first_seed),
        ]
        environment = os.environ | {"PYTHONPATH": directory}
        ended = subprocess.run(command, cwd=copy, env=environment, check=True, stdout=subprocess.PIPE)
    found = json.loads(ended.stdout)
    return None if found is None else Found(*found)


def try_all(
    mutations: Iterable[Mutation], *, first_seed: Callable[[Mutation], int]
) -> dict[str, Future[Found | None]]:
    """Try several side by side, one on each processor."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        return {each.name: pool.submit(try_out, each, first_seed=first_seed(each)) for each in mutations}
    finally:
        pool.shutdown(wait=False)


def outcomes(printed: str) -> dict[str, Found | None]:
    """What `--json` has printed: what was found of each mutation."""
    found = (json.loads(line) for line in printed.splitlines())
    return {name: None if seed is None else Found(seed, wrong) for name, seed, wrong in found}


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations.trial", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a mutation; all when none is named")
    parser.add_argument("--json", action="store_true", help="for the tests, from the recorded seeds on")
    asked = parser.parse_args()
    chosen = [each for each in MUTATIONS if not asked.names or each.name in asked.names]
    trials = try_all(chosen, first_seed=lambda mutation: mutation.first_seed if asked.json else 0)
    missed = 0
    for mutation in chosen:
        found = trials[mutation.name].result()
        missed += found is None
        if asked.json:
            print(json.dumps([mutation.name, found and found.seed, found and found.wrong]), flush=True)
        else:
            told = "NOT FOUND" if found is None else f"seed {found.seed}: {found.wrong}"
            print(f"{mutation.rule:4} {mutation.name}: {told}", flush=True)
    return 1 if missed and not asked.json else 0


if __name__ == "__main__":
    sys.exit(main())
