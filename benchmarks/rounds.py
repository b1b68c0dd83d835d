"""Measures every contender in turn, round after round, and keeps every sample.

A round gives each contender the same two files, one after the other; the next round begins with another contender, so
that no one always has the same neighbour. Rounds, not blocks of runs: what changes on the machine in the course of
minutes then touches all alike.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import fio
from benchmarks.files import Files
from benchmarks.fio import Sample, Timing
from benchmarks.peers import Contender, Stage
from benchmarks.workloads import COPY, MIB, System, workloads_for

Tell = Callable[[str], None]
Key = tuple[str, System]  # the name of a case, and who was measured


@dataclass(slots=True)
class Samples:
    """Every sample of every case, in the order in which they were taken."""

    by_case: dict[Key, list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def add(self, case: str, system: System, sample: Sample) -> None:
        """Keep one."""
        self.by_case[case, system].append(sample)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    rounds: int
    seconds: int
    full: bool


def run_rounds(
    contenders: Sequence[Contender], files: Files, folder: Path, plan: Plan, samples: Samples, tell: Tell
) -> None:
    """Measure all contenders, `plan.rounds` times."""
    for number in range(plan.rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            files.settle()
            with closing(contender.stages(files, folder)) as stages:
                for stage in stages:
                    timing = Timing(plan.seconds, seed=number + 1)
                    tell(f"round {number + 1} of {plan.rounds}, {files.caching}: {stage.system}")
                    _measure(stage, files, timing, samples, full=plan.full)
                    if stage.system is not contender.systems[-1]:
                        files.settle()  # the next stage may begin with a copy
            if contender.clones:
                files.check_equal()


def _measure(stage: Stage, files: Files, timing: Timing, samples: Samples, *, full: bool) -> None:
    if stage.copy_seconds is not None:
        rate = files.size_bytes / MIB / stage.copy_seconds
        samples.add(
            files.caching.case(COPY), stage.system, Sample(mib_per_s=rate, seconds=stage.copy_seconds)
        )
    if stage.uri is None:
        return
    for workload in workloads_for(stage.system, full=full):
        files.settle()
        samples.add(files.caching.case(workload.name), stage.system, fio.measure(workload, stage.uri, timing))
