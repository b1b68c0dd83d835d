"""`python -m benchmarks`: measure Cutover beside its peers, print tables, write `benchmarks/results.json`."""

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.cutover import Cutover
from benchmarks.files import make_files
from benchmarks.peers import PEERS, Contender
from benchmarks.report import cases, print_tables, write_results
from benchmarks.rounds import Plan, Samples, run_rounds
from benchmarks.workloads import GIB, Caching, System

DIRECTORY = "/var/tmp"  # noqa: S108 - only the parent of a folder that tempfile makes
QUIET_LOAD = 0.5
RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    """Measure as the command line says."""
    options = _parse()
    plan = Plan(options.rounds, options.seconds, options.full)
    contenders: list[Contender] = [
        contender for contender in (Cutover(), *PEERS) if set(contender.systems) & set(options.only)
    ]
    console = Console()
    tell = partial(console.print, highlight=False, soft_wrap=True)
    if (load := os.getloadavg()[0]) > QUIET_LOAD:
        tell(f"This machine is busy (load average {load:.1f}): expect figures that are too low, and scatter.")
    samples = Samples()
    for caching in options.caching:
        with tempfile.TemporaryDirectory(prefix="cutover-bench-", dir=options.directory) as folder:
            tell(f"writing two files of 1 GiB below {folder}")
            files = make_files(Path(folder), GIB, caching)
            run_rounds(contenders, files, Path(folder), plan, samples, tell)
    found = cases(samples)
    print_tables(console, found)
    write_results(options.output, found, plan)
    tell(f"written to {options.output}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--full", action="store_true", help="measure every case, not only those behind the ratios")
    add("--rounds", type=int, default=3, help="how often each case is measured (%(default)s)")
    add("--seconds", type=int, default=5, help="how long each run of fio lasts (%(default)s)")
    add("--directory", default=DIRECTORY, help="where the files go: on a real disk (%(default)s)")
    add("--output", type=Path, default=RESULTS, help="where the results go (%(default)s)")
    add(
        "--caching",
        type=Caching,
        choices=list(Caching),
        nargs="+",
        default=[Caching.BUFFERED, Caching.DIRECT],
        help="see `benchmarks/workloads.py` (buffered and direct)",
    )
    add("--only", type=System, choices=list(System), nargs="+", default=list(System), help="all by default")
    return parser.parse_args()


if __name__ == "__main__":
    main()
