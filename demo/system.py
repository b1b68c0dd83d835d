"""Cutover as the demonstration sees it: the public `cutover` command, and nothing else."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from demo.volume import DemoError

STOP_PATIENCE_S = 100.0
READY_PATIENCE_S = 60.0
LOG_LINES_TOLD = 15
_LINE_BYTES_MAX = 1 << 20


class System:
    """A running `cutover up`, and commands for it."""

    def __init__(self, ready: Mapping[str, Any]) -> None:
        """`ready` is what it said when it was."""
        self.nats_url: str = ready["nats_url"]

    async def command(self, *arguments: str) -> Any:
        """Run one command with `--json`; its answer.

        Raises:
            DemoError: it was refused or failed.
        """
        process = await asyncio.create_subprocess_exec(
            *_command(), *arguments, "--json",
            env=_environment(self.nats_url),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            stdout, stderr = await process.communicate()
        finally:
            await _ended(process)
        answer = (
            json.loads(stdout) if stdout else {"error": {"code": "-", "message": stderr.decode().strip()}}
        )
        if isinstance(answer, dict) and "error" in answer:
            error = answer["error"]
            raise DemoError(f"cutover {arguments[0]} failed ({error['code']}): {error['message']}")
        return answer

    @asynccontextmanager
    async def watching(self, name: str) -> AsyncIterator[asyncio.StreamReader]:
        """What `cutover query NAME --watch --json` tells, a status a line."""
        process = await asyncio.create_subprocess_exec(
            *_command(), "query", name, "--watch", "--json",
            env=_environment(self.nats_url), limit=_LINE_BYTES_MAX,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the demonstration, which then stops this
        )  # fmt: skip
        try:
            yield pipe(process.stdout)
        finally:
            await _ended(process)


@asynccontextmanager
async def running(state_dir: Path, log: Path, *allowed: Path) -> AsyncIterator[System]:
    """Run `cutover up` for as long as the context is open; it is stopped cleanly whatever happens.

    Raises:
        DemoError: it does not start, or did not stop cleanly.
    """
    arguments = [part for path in allowed for part in ("--allow", str(path))]
    with log.open("wb") as log_file:
        process = await asyncio.create_subprocess_exec(
            *_command(), "up", "--json", "--port", "0", "--no-monitoring", "--state-dir", str(state_dir), *arguments,
            env=_environment(None),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log_file,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield System(await _ready(process, log))
    except BaseException:
        await _stop(process, state_dir)
        raise
    if not await _stop(process, state_dir):
        raise DemoError(f"cutover up did not stop cleanly.\n{last_lines(log)}")


async def _ready(process: asyncio.subprocess.Process, log: Path) -> Mapping[str, Any]:
    try:
        async with asyncio.timeout(READY_PATIENCE_S):
            line = await pipe(process.stdout).readline()
    except TimeoutError:
        line = b""
    answer = json.loads(line) if line else {}
    if not answer.get("ready"):
        said = answer.get("error", {}).get("message", "")
        raise DemoError(f"cutover up does not start. {said}\n{last_lines(log)}")
    return dict(answer)


async def _stop(process: asyncio.subprocess.Process, state_dir: Path) -> bool:
    """Stop it; whether it was a clean stop. Nothing that it started is left behind."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_PATIENCE_S):
            await process.wait()
    except TimeoutError:
        for pid in _left_running(state_dir):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        await process.wait()
    return process.returncode == 0


def _left_running(state_dir: Path) -> list[int]:
    try:
        services = json.loads((state_dir / "up.json").read_text())["services"]
    except (OSError, ValueError, KeyError):
        return []
    return [pid for pid in services.values() if pid is not None and Path(f"/proc/{pid}").exists()]


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Let no process outlive the one who asked for it."""
    if process.returncode is None:
        process.terminate()
        await process.wait()


def pipe(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    """The stream, which is there because it was asked for."""
    if stream is None:
        raise DemoError("A process was started without a pipe.")
    return stream


def _command() -> tuple[str, ...]:
    """The `cutover` command beside the Python that runs this; without an installation, its module."""
    installed = Path(sys.executable).parent / "cutover"
    return (str(installed),) if installed.exists() else (sys.executable, "-m", "services.console")


def _environment(nats_url: str | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CUTOVER_")}
    return kept | ({"CUTOVER_NATS_URL": nats_url} if nats_url else {})


def last_lines(log: Path) -> str:
    """The end of a log, for a report of what went wrong."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-LOG_LINES_TOLD:])
