"""One run of fio's nbd engine against one export."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from benchmarks.workloads import Workload

_WARM_UP_S = 1
_BYTES_IN_MIB = 1024 * 1024
_GRACE_S = 60  # for a system that answers late; longer means that it hangs


@dataclass(frozen=True, slots=True)
class Timing:
    """How long each run lasts, and what the offsets of this round are drawn from: the same for every system."""

    seconds: int
    seed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run measured. A copy has no I/O operations of its own, only a rate and the seconds that it took."""

    mib_per_s: float
    iops: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    seconds: float | None = None


def command(workload: Workload, uri: str, timing: Timing) -> list[str]:
    """The job, word for word the same for every system but for the URI."""
    return [
        "fio",
        f"--name={workload.name}",
        "--ioengine=nbd",
        f"--uri={uri}",
        f"--rw={workload.pattern}",
        "--rwmixread=70",
        f"--bs={workload.block_bytes}",
        f"--iodepth={workload.depth}",
        "--norandommap",
        f"--randseed={timing.seed}",
        "--time_based",
        f"--ramp_time={_WARM_UP_S}",
        f"--runtime={timing.seconds}",
        "--unified_rw_reporting=1",
        "--lat_percentiles=1",  # the whole way: at depth 1 much of a request's time is spent in sending it
        "--clat_percentiles=0",
        "--percentile_list=50:99",
        "--output-format=json",
    ]


def measure(workload: Workload, uri: str, timing: Timing) -> Sample:
    """Run it once.

    Raises:
        RuntimeError: fio failed, or met an I/O error.
    """
    result = subprocess.run(
        command(workload, uri, timing),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_WARM_UP_S + timing.seconds + _GRACE_S,
        check=False,
    )
    if result.returncode != 0:
        said = f"{result.stderr} {result.stdout}".strip()
        raise RuntimeError(f"fio ended with status {result.returncode} on {uri}: {said}")
    # Lines of text may stand before the JSON.
    job: dict[str, Any] = json.loads(result.stdout[result.stdout.index("{") :])["jobs"][0]
    if job["error"] != 0:
        raise RuntimeError(f"fio met error {job['error']} on {uri}")
    figures = job["mixed"]
    percentiles = figures["lat_ns"]["percentile"]
    return Sample(
        mib_per_s=figures["bw_bytes"] / _BYTES_IN_MIB,
        iops=figures["iops"],
        p50_us=percentiles["50.000000"] / 1000,
        p99_us=percentiles["99.000000"] / 1000,
    )
