"""`python -m benchmarks.resync`: what the region map saves after an unclean stop, and what it costs until then.

Saved: a volume of 4 GiB in sync; 64 MiB are written in small pieces all over a part of it, everything is killed, started
again, and synced. The bytes that are copied are counted by the kernel, at the target's loop device. Needs root.

Cost: fio's cloned 4 KiB random writes, with the map and without, in turns, on the same two files.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.cutover import Running, running_on
from benchmarks.files import make_files
from benchmarks.fio import Timing, measure
from benchmarks.workloads import GIB, KIB, MIB, WORKLOADS, Caching

DIRECTORY = "/var/tmp"  # noqa: S108 - only the parent of a folder that tempfile makes
RESULTS = Path(__file__).with_name("resync.json")

_VOLUME_BYTES = 4 * GIB
_WRITTEN_BYTES = 64 * MIB
_PIECE_BYTES = 64 * KIB
_REGION_BYTES = MIB
_SPREAD = 512  # regions that the pieces fall into
_PATIENCE_S = 300.0
_LOOK_AGAIN_S = 0.2
_SECTOR_BYTES = 512
_NAME = "resync"
# Long enough for nothing to grow clean between the first write and the kill, on a machine that is not busy.
_RARELY = {"CUTOVER_HOST_TARGET_FLUSH_INTERVAL_S": "10"}
_WITHOUT_MAP = {"CUTOVER_HOST_REGION_MAP": "false"}
_WRITES = next(each for each in WORKLOADS if each.name == "randwrite_4k_qd16")


@dataclass(frozen=True, slots=True)
class Saved:
    """What was copied after the kill, beside what was written before it."""

    touched_bytes: int  # the regions that the writes fell into
    announced_bytes: int  # what `query` said before the sync
    copied_bytes: int  # what the target's device was written
    seconds: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations a second, with the map and without; medians of the rounds."""

    with_map: float
    without_map: float
    first_with_map: float  # right after the copy, before anything was written

    @property
    def share(self) -> float:
        """What the map costs, of what there is without it."""
        return 1 - self.with_map / self.without_map


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resync", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each kind is measured (%(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="how long each run of fio lasts (%(default)s)")
    parser.add_argument(
        "--directory", default=DIRECTORY, help="where the files go: on a real disk (%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the results go (%(default)s)")
    parser.add_argument("--only", choices=("saved", "cost"), help="both by default")
    options = parser.parse_args()
    console = Console(soft_wrap=True)
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="cutover-resync-", dir=options.directory) as folder:
        if options.only != "cost":
            saved = _measure_saved(Path(folder))
            times = saved.copied_bytes / saved.touched_bytes
            console.print(
                f"written to {saved.touched_bytes // MIB} MiB of regions, told {saved.announced_bytes // MIB} MiB, "
                f"copied {saved.copied_bytes / MIB:.1f} MiB ({times:.2f} times) in {saved.seconds:.2f} s"
            )
            results["saved"] = {
                "touched_bytes": saved.touched_bytes,
                "announced_bytes": saved.announced_bytes,
                "copied_bytes": saved.copied_bytes,
                "times": round(times, 3),
                "seconds": round(saved.seconds, 3),
            }
        if options.only != "saved":
            cost = _measure_cost(Path(folder), options.rounds, options.seconds)
            console.print(
                f"cloned 4 KiB random writes, depth 16: {cost.with_map:.0f}/s with the map ({cost.first_with_map:.0f}/s at "
                f"first), {cost.without_map:.0f}/s without: it costs {cost.share:.1%}"
            )
            results["cost"] = {
                "with_map_iops": round(cost.with_map),
                "first_with_map_iops": round(cost.first_with_map),
                "without_map_iops": round(cost.without_map),
                "share": round(cost.share, 4),
            }
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"written to {options.output}")


# ------------------------------------------------------------------ what it saves


def _measure_saved(folder: Path) -> Saved:
    source, target = folder / "source.img", folder / "target.img"
    for path in (source, target):
        with path.open("wb") as file:
            file.truncate(_VOLUME_BYTES)
    state = folder / "state"
    state.mkdir()
    with _loop_device(target) as device:
        with running_on(state, [folder, device], _RARELY, survives=False) as running:
            running.command(
                "setup", _NAME, "--source", str(source), "--target", str(device), "--overwrite-target"
            )
            running.command("sync", _NAME)
            _until(
                running, lambda status: status["state"] == "source-selected" and status["resync_bytes"] == 0
            )
            touched = _scatter(str(running.command("query", _NAME)["export_uri"]))
            _kill_all(running.pid)
        with running_on(state, [folder, device], _RARELY) as running:
            announced = int(running.command("query", _NAME)["resync_bytes"])
            before, begin = _written_bytes(device), time.monotonic()
            running.command("sync", _NAME)
            _until(running, lambda status: status["state"] == "source-selected")
            seconds = time.monotonic() - begin
            os.sync()
            copied = _written_bytes(device) - before
        subprocess.run(["cmp", source, device], check=True)  # the resync is worth nothing otherwise
    return Saved(touched * _REGION_BYTES, announced, copied, seconds)


def _scatter(uri: str) -> int:
    """Write 64 MiB in small pieces; returns how many regions that touches."""
    chance = random.Random(1)  # noqa: S311 - the same pieces every time
    regions = chance.sample(range(_VOLUME_BYTES // _REGION_BYTES), _SPREAD)
    commands, touched = [], set()
    for number in range(_WRITTEN_BYTES // _PIECE_BYTES):
        region = chance.choice(regions)
        touched.add(region)
        offset = region * _REGION_BYTES + chance.randrange(_REGION_BYTES // _PIECE_BYTES) * _PIECE_BYTES
        commands.append(f"write -q -P {number % 255 + 1} {offset} {_PIECE_BYTES}\n")
    done = subprocess.run(
        ["qemu-io", "-t", "writeback", "-f", "raw", uri],
        input="".join(commands), capture_output=True, text=True, timeout=_PATIENCE_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"qemu-io: {done.stderr}")
    return len(touched)


def _kill_all(pid: int) -> None:
    """`cutover up` first, so that it mends nothing, then everything that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *map(int, children)):
        os.kill(each, signal.SIGKILL)


def _until(running: Running, is_so: Callable[[dict[str, Any]], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not is_so(running.command("query", _NAME)):
        if time.monotonic() > end:
            raise RuntimeError("the migration does not get on")
        time.sleep(_LOOK_AGAIN_S)


@contextmanager
def _loop_device(backing: Path) -> Iterator[Path]:
    done = subprocess.run(
        ["losetup", "--find", "--show", "--direct-io=on", backing], capture_output=True, text=True, check=True
    )
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def _written_bytes(device: Path) -> int:
    """All that was ever written to a block device (`Documentation/block/stat.rst`)."""
    return int(Path(f"/sys/block/{device.name}/stat").read_text().split()[6]) * _SECTOR_BYTES


# ------------------------------------------------------------------ what it costs


def _measure_cost(folder: Path, rounds: int, seconds: int) -> Cost:
    files = make_files(folder, GIB, Caching.BUFFERED)
    first: list[float] = []
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds):
        for has_map in (True, False) if number % 2 else (False, True):
            state = Path(tempfile.mkdtemp(prefix="state-", dir=folder))
            with running_on(state, [folder], {} if has_map else _WITHOUT_MAP) as running:
                running.command(
                    "setup", _NAME, "--source", str(files.source), "--target", str(files.target), "--overwrite-target"
                )  # fmt: skip
                running.command("sync", _NAME)
                _until(running, lambda status: status["state"] == "source-selected")
                uri = str(running.command("query", _NAME)["export_uri"])
                if has_map:
                    _until(running, lambda status: status["resync_bytes"] == 0)
                    first.append(_iops(uri, seconds, number))
                else:
                    _iops(uri, seconds, number)
                speeds[has_map].append(_iops(uri, seconds, number))
            files.check_equal()
    return Cost(statistics.median(speeds[True]), statistics.median(speeds[False]), statistics.median(first))


def _iops(uri: str, seconds: int, seed: int) -> float:
    iops = measure(_WRITES, uri, Timing(seconds, seed)).iops
    if iops is None:
        raise RuntimeError("fio counted nothing")
    return iops


if __name__ == "__main__":
    main()
