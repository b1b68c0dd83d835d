"""What the demonstration shows: a live line, a line for each thing that happened, and tables at the end."""

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.application import StepFigures
from demo.proof import Finding

_BAR_CELLS = 20
_MIB = 1 << 20


class Screen:
    """Standard output, with or without a terminal."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self.console = Console(highlight=False, markup=False, emoji=False)
        self._began = time.monotonic()
        self._status: dict[str, Any] = {}
        self._report: dict[str, Any] = {}
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def still(self) -> None:
        """Nothing is live any more; what is said now is for good."""
        self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """Something happened."""
        at = f"{time.monotonic() - self._began:6.1f} s  "
        self.console.print(Text.assemble((at, "dim"), (text, style)), soft_wrap=True)

    async def follow(self, statuses: asyncio.StreamReader) -> None:
        """Show the progress that `cutover query --watch --json` tells, and say each change of state."""
        while line := await statuses.readline():
            status = json.loads(line)
            if (status["state"], status["attempt"]) != (
                self._status.get("state"),
                self._status.get("attempt"),
            ):
                self.say(f"state   {status['state']} (attempt {status['attempt']})", "bold cyan")
            self._status = status
            self._draw()

    def application(self, report: dict[str, Any]) -> None:
        """Show what the application did lately."""
        self._report = report
        self._draw()

    def _draw(self) -> None:
        if self.console.is_terminal:
            self._live.update(
                Text.assemble(_progress(self._status), "  ", _figures(self._report)), refresh=True
            )

    def steps(self, steps: Iterable[StepFigures]) -> None:
        """The application's figures, step by step."""
        table = Table(title="The application, step by step", title_justify="left", box=None, pad_edge=False)
        for heading in ("step", "seconds", "reads/s", "writes/s", "IOPS", "worst latency"):
            table.add_column(heading, justify="left" if heading == "step" else "right", header_style="dim")
        for step in steps:
            seconds = step.seconds or 1.0
            table.add_row(
                step.name,
                f"{step.seconds:.1f}",
                f"{step.reads / seconds:,.0f}",
                f"{step.writes / seconds:,.0f}",
                f"{step.iops:,.0f}",
                f"{step.worst_ms:,.1f} ms",
            )
        self.console.print()
        self.console.print(table)

    def findings(self, findings: Iterable[Finding]) -> None:
        """The proof."""
        self.console.print()
        for finding in findings:
            mark = ("✔ ", "bold green") if finding.holds else ("✘ ", "bold red")
            self.console.print(
                Text.assemble(mark, finding.claim, (f"  ({finding.checked})", "dim")), soft_wrap=True
            )
            for difference in finding.differences:
                self.console.print(Text(f"    {difference}", style="red"), soft_wrap=True)


def _progress(status: dict[str, Any]) -> Text:
    if not status:
        return Text()
    text = Text.assemble((f"{status['state']:<15}", "bold"))
    if status["state"] == "syncing" and status["synced_bytes"] is not None:
        share = status["synced_bytes"] / status["size_bytes"]
        cells = int(share * _BAR_CELLS)
        text.append("━" * cells, "green").append("─" * (_BAR_CELLS - cells), "dim")
        text.append(f" {share * 100:5.1f} %  {(status['rate_bytes_per_s'] or 0) / _MIB:6.1f} MiB/s")
        text.append(f"  {status['remaining_bytes'] / _MIB:5.0f} MiB left")
        eta = status["eta_s"]
        text.append(f"  {eta:3.0f} s to go" if eta is not None else "")
    return text


def _figures(report: dict[str, Any]) -> Text:
    if not report:
        return Text()
    iops = (report["reads"] + report["writes"]) / (report["seconds"] or 1.0)
    return Text(f"application {iops:7,.0f} IOPS, worst {report['worst_ms']:6.1f} ms", style="yellow")
