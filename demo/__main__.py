"""`make demo`: migrate a volume in use from end to end, and prove that nothing was lost.

Exit status 0 when everything holds, 1 when anything differs or goes wrong, 2 for a wrong command line; `make` turns any
failure into its own 2. All that it makes is gone at the end but a report.
"""

import argparse
import asyncio
import json
import os
import platform
import secrets
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from demo.journey import Journey, Outcome
from demo.made_volumes import MadeVolumes
from demo.own_volumes import OwnVolumes
from demo.screen import Screen
from demo.volume import DemoError

REPORT = Path("build") / "demo-report.json"
INTERRUPTED = 130


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make demo", description="Migrate a live volume and prove it.")
    parser.add_argument(
        "--source",
        type=Path,
        default=_from_environment("SOURCE"),
        help="a volume of your own; it is only read (SOURCE)",
    )
    parser.add_argument(
        "--target",
        type=Path,
        default=_from_environment("TARGET"),
        help="where to copy it; it is overwritten (TARGET)",
    )
    parser.add_argument("--report", type=Path, default=REPORT, help=f"where the report goes ({REPORT})")
    options = parser.parse_args(arguments)
    if (options.source is None) != (options.target is None):
        parser.error("SOURCE and TARGET go together: give both or neither")
    return options


def _from_environment(variable: str) -> Path | None:
    """A path that make hands on: what stands on its command line is in the environment."""
    return Path(os.environ[variable]) if os.environ.get(variable) else None


async def run(options: argparse.Namespace, screen: Screen, scratch: Path) -> Outcome:
    """The whole journey, on volumes of the operator's or of our own."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: task.cancel() if task and not task.cancelling() else None)
    if options.source is not None:
        overwrite = os.environ.get("OVERWRITE") == "1"
        volumes: OwnVolumes | MadeVolumes = OwnVolumes(options.source, options.target, overwrite=overwrite)
    else:
        volumes = MadeVolumes(scratch, run=secrets.randbits(63))
    return await Journey(volumes, screen, scratch).go()


def write_report(file: Path, outcome: Outcome | None, error: str | None) -> None:
    """What was done and found, for machines and for later."""
    document = {
        "holds": error is None and outcome is not None and all(finding.holds for finding in outcome.findings),
        "error": error,
        "machine": {
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        },
        "steps": [asdict(step) | {"iops": round(step.iops)} for step in outcome.steps] if outcome else [],
        "findings": [asdict(finding) | {"holds": finding.holds} for finding in outcome.findings]
        if outcome
        else [],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2, default=str) + "\n")


def main() -> int:
    """Run it, show it, report it."""
    options = parse(sys.argv[1:])
    outcome: Outcome | None = None
    error: str | None = None
    status = 1
    with Screen() as screen, tempfile.TemporaryDirectory(prefix="cutover-demo-") as scratch:
        try:
            outcome = asyncio.run(run(options, screen, Path(scratch)))
            status = 0 if all(finding.holds for finding in outcome.findings) else 1
        except* DemoError as errors:
            error = "\n".join(_sentences(errors))
        except* (asyncio.CancelledError, KeyboardInterrupt):
            error, status = "Interrupted; everything that was started is stopped.", INTERRUPTED
        screen.still()
        if outcome is not None:
            screen.steps(outcome.steps)
            screen.findings(outcome.findings)
        if error is not None:
            screen.console.print(f"✘ {error}", style="bold red")
    write_report(options.report, outcome, error)
    verdict = "Nothing was lost." if status == 0 else "The demonstration failed."
    screen.console.print(f"\n{verdict} The report is {options.report}.", style="bold")
    return status


def _sentences(errors: BaseExceptionGroup[DemoError]) -> list[str]:
    """The sentences of all errors in a group of groups."""
    found = []
    for error in errors.exceptions:
        found += _sentences(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return found


if __name__ == "__main__":
    sys.exit(main())
