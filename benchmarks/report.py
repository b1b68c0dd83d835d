"""Medians, ratios, `results.json` and the tables for people."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from benchmarks.fio import Sample
from benchmarks.peers import NOTES
from benchmarks.rounds import Plan, Samples
from benchmarks.workloads import RATIOS, Caching, System

_PROGRAMS = ("fio", "nbdkit", "nbdcopy", "qemu-nbd", "qemu-storage-daemon")


@dataclass(frozen=True, slots=True)
class Case:
    """One case of one system: the median of each figure, and the samples that it comes from."""

    name: str
    system: System
    median: Sample
    samples: list[Sample]

    def as_json(self) -> dict[str, Any]:
        """As it stands in `results.json`."""
        samples = [asdict(sample) for sample in self.samples]
        return {"name": self.name, "system": self.system, **asdict(self.median), "samples": samples}


def cases(samples: Samples) -> list[Case]:
    """Every case with its medians."""
    return [Case(name, system, _median(taken), taken) for (name, system), taken in samples.by_case.items()]


def ratios(found: list[Case]) -> dict[str, float]:
    """The ratios for which both sides were measured: of operations, or of a copy's rate."""
    medians = {(case.name, case.system): case.median for case in found}
    result = {}
    for caching in Caching:
        for ratio in RATIOS:
            name = caching.case(ratio.case)
            ours, theirs = medians.get((name, ratio.ours)), medians.get((name, ratio.theirs))
            if ours is not None and theirs is not None:
                result[caching.case(ratio.name)] = round(_speed(ours) / _speed(theirs), 3)
    return result


def write_results(path: Path, found: list[Case], plan: Plan) -> None:
    """Write `results.json` as a whole: whoever reads it while we write sees the old one."""
    document = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan": asdict(plan),
        "machine": _machine(),
        "notes": {system.value: note for system, note in NOTES.items()},
        "ratios": ratios(found),
        "bars": {ratio.name: ratio.bar for ratio in RATIOS if ratio.bar is not None},
        "cases": [case.as_json() for case in found],
    }
    draft = path.with_suffix(".json.new")
    draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def print_tables(console: Console, found: list[Case]) -> None:
    """Print what was measured, case by case, and the ratios beside what we want of ourselves."""
    figures = (_right(title) for title in ("IOPS", "MiB/s", "p50 µs", "p99 µs"))
    table = Table("case", "system", *figures, box=SIMPLE_HEAD, pad_edge=False)  # 80 columns are enough
    order = list(System)
    for name in dict.fromkeys(case.name for case in found):
        same = [case for case in found if case.name == name]
        for case in sorted(same, key=lambda case: order.index(case.system)):
            of = case.median
            table.add_row(name, case.system, *map(_whole, (of.iops, of.mib_per_s, of.p50_us, of.p99_us)))
        table.add_section()
    console.print(table)
    console.print(_ratio_table(found))


def _ratio_table(found: list[Case]) -> Table:
    bars = {ratio.name: ratio.bar for ratio in RATIOS}
    table = Table("Cutover beside its peers", _right("times"), "wanted", box=SIMPLE_HEAD, pad_edge=False)
    for name, value in ratios(found).items():
        bar = bars.get(name)
        wanted = "" if bar is None else f"{bar:.1f} {'met' if value >= bar else 'MISSED'}"
        table.add_row(name, f"{value:.2f}", wanted)
    return table


def _right(title: str) -> Column:
    return Column(title, justify="right")


def _whole(figure: float | None) -> str:
    return "" if figure is None else f"{figure:,.0f}"


def _median(samples: list[Sample]) -> Sample:
    def of(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return round(statistics.median(known), 3) if known else None

    return Sample(
        mib_per_s=round(statistics.median(sample.mib_per_s for sample in samples), 3),
        iops=of(sample.iops for sample in samples),
        p50_us=of(sample.p50_us for sample in samples),
        p99_us=of(sample.p99_us for sample in samples),
        seconds=of(sample.seconds for sample in samples),
    )


def _speed(sample: Sample) -> float:
    return sample.mib_per_s if sample.iops is None else sample.iops


def _machine() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "cpu": next(_cpu_models(), platform.machine()),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 2) for load in os.getloadavg()],  # of 1, 5 and 15 minutes, at the end
        "kernel": platform.release(),
        "python": f"{platform.python_version()} of {sys.base_prefix}",  # builds of a version differ in speed
        "commit": commit.stdout.strip(),
        **{program: _version(program) for program in _PROGRAMS},
    }


def _cpu_models() -> Iterator[str]:
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            yield line.partition(":")[2].strip()


def _version(program: str) -> str:
    result = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[0]
