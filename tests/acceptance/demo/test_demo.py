"""`make demo`, run as it is: everything holds, and nothing but a report is left behind."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PATIENCE_S = 110.0


@asynccontextmanager
async def demo(scratch: Path, *options: str, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        key: value for key, value in os.environ.items() if key not in {"SOURCE", "TARGET", "OVERWRITE"}
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "demo", "--report", str(scratch / "report.json"), *options,
        cwd=ROOT, env=environment | {"TMPDIR": str(scratch)} | more,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(PATIENCE_S):
        stdout, _ = await process.communicate()
    return process.returncode, stdout.decode()


def processes(scratch: Path) -> dict[int, bytes]:
    """The command lines of the processes that a demonstration in this folder has running."""
    running = {}
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:  # it has just ended
            continue
        if f"{scratch}/cutover-demo-".encode() in command:
            running[int(entry.name)] = command
    return running


def left_behind(scratch: Path) -> list[object]:
    """Processes, and files in the scratch folder."""
    return [*processes(scratch).values(), *scratch.glob("cutover-demo-*")]


@pytest.mark.slow
async def test_default_journey_holds(short_path: Path) -> None:
    async with demo(short_path) as process:
        status, said = await ended(process)
    assert status == 0, said
    report = json.loads((short_path / "report.json").read_text())
    assert report["holds"]
    assert [finding["holds"] for finding in report["findings"]] == [True] * 5
    assert [step["name"] for step in report["steps"]] == [
        "setup", "syncing", "source-selected", "target-selected", "source-selected, again",
        "target-selected, again", "committed",
    ]  # fmt: skip
    assert all(step["writes"] > 0 and step["reads"] > 0 for step in report["steps"])
    assert left_behind(short_path) == []


@pytest.mark.slow
async def test_volumes_of_the_operator_are_copied_and_the_source_is_only_read(short_path: Path) -> None:
    source, target = short_path / "source", short_path / "target"
    source.write_bytes(os.urandom((5 << 20) + 512))
    target.touch()
    os.truncate(target, 8 << 20)
    before = source.read_bytes()
    async with demo(short_path, SOURCE=str(source), TARGET=str(target)) as process:  # as make hands them on
        status, said = await ended(process)
    assert status == 0, said
    assert source.read_bytes() == before
    assert target.read_bytes()[: len(before)] == before
    async with demo(short_path, "--source", str(source), "--target", str(target)) as process:
        status, said = await ended(process)
    assert status == 1
    assert "OVERWRITE=1" in said


async def test_ctrl_c_stops_everything(short_path: Path) -> None:
    async with demo(short_path) as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while b"syncing" not in await process.stdout.readline():
                pass
        process.send_signal(signal.SIGINT)
        status, said = await ended(process)
    assert status == 130
    assert "everything that was started is stopped" in said
    assert left_behind(short_path) == []


async def test_an_application_that_dies_fails_the_demonstration(short_path: Path) -> None:
    async with demo(short_path) as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while b"has connected" not in await process.stdout.readline():
                pass
        (client,) = (pid for pid, command in processes(short_path).items() if b"demo.client" in command)
        os.kill(client, signal.SIGKILL)
        status, said = await ended(process)
    assert status == 1, said
    assert "The application" in said
    assert left_behind(short_path) == []


async def test_one_volume_alone_is_wrong_usage(short_path: Path) -> None:
    async with demo(short_path, "--source", "/dev/null") as process:
        status, said = await ended(process)
    assert status == 2
    assert "go together" in said
