"""`cutover up` with a volume on it: stopped in order by SIGTERM, and as it was when it is up again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import nats.errors

from shared.bus.connection import connected
from shared.clock import SystemClock
from tests.acceptance.system.application import Application
from tests.acceptance.system.devices import MIB, digest, empty_file, full_file
from tests.acceptance.system.whole_system import ROOT

TIMEOUT_S = 60.0
T = TypeVar("T")


@contextmanager
def up(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """The command, in a session of its own; told to stop and waited for in the end."""
    command = [sys.executable, "-m", "services.console", "up", "--json", "--state-dir", str(folder / "state")]
    with (
        (folder / "up.log").open("ab") as log,
        subprocess.Popen(
            [*command, "--allow", str(folder / "data"), "--port", "0", "--no-monitoring"],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("CUTOVER_")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT_S)


def ready(process: "subprocess.Popen[str]") -> dict[str, str]:
    """What it says once everything serves."""
    assert process.stdout is not None
    said: dict[str, str] = json.loads(process.stdout.readline())
    return said


def operator(url: str, *arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "services.console", "--server", url, *arguments, "--json"],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


def test_up_serves_a_whole_life_and_keeps_its_state_over_a_stop(short_path: Path) -> None:
    (short_path / "data").mkdir()
    source = full_file(short_path / "data/source.img", 8 * MIB, seed=1)
    target = empty_file(short_path / "data/target.img", 8 * MIB)
    with up(short_path) as process:
        url = ready(process)["nats_url"]
        made = operator(url, "setup", "vol1", "--source", str(source), "--target", str(target))
        operator(url, "sync", "vol1")
        operator(url, "wait", "vol1", "source-selected", "--timeout", "20")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0, (short_path / "up.log").read_text()
    with up(short_path) as process:
        url = ready(process)["nats_url"]
        status = operator(url, "query", "vol1")
        assert (status["uuid"], status["state"], status["attempt"]) == (made["uuid"], "source-selected", 1)
        with Application(str(status["export_uri"]), blocks=1024) as application:
            operator(url, "select-target", "vol1")
            operator(url, "commit", "vol1", "--yes")
            application.until_operations(100)
            report = application.stop()
        operator(url, "cleanup", "vol1", "--yes")
    assert process.returncode == 0, (short_path / "up.log").read_text()
    assert report.errors == []
    assert report.differences(target) == []
    assert digest(source) != digest(target), "what was written after commit went to the source, too"


async def test_the_last_word_on_progress_can_be_asked_for_again_when_nats_was_restarted(
    short_path: Path,
) -> None:
    (short_path / "data").mkdir()
    source = full_file(short_path / "data/source.img", 8 * MIB, seed=1)
    target = empty_file(short_path / "data/target.img", 8 * MIB)
    with up(short_path) as process:
        url = ready(process)["nats_url"]
        operator(url, "setup", "vol1", "--source", str(source), "--target", str(target))
        running = json.loads((short_path / "state/up.json").read_text())
        async with asyncio.timeout(TIMEOUT_S), connected(url, name="test", clock=SystemClock()) as bus:
            is_back = asyncio.Event()
            bus.on_reconnect(is_back.set)
            os.kill(running["services"]["nats"], signal.SIGKILL)
            stream = bus.client.jetstream()
            await is_back.wait()
            await once_there(partial(stream.stream_info, "CUTOVER_PROGRESS"))
            await asyncio.to_thread(operator, url, "throttle", "vol1", "5MiB/s")

            async def throttled() -> None:
                last = await stream.get_last_msg("CUTOVER_PROGRESS", "cutover.progress.vol1")
                if json.loads(last.data or b"{}")["throttle_bytes_per_s"] != 5 * MIB:
                    raise nats.errors.Error  # not yet: it is told once a second

            await once_there(throttled)
    assert process.returncode == 0, (short_path / "up.log").read_text()


async def once_there(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, as soon as there is one."""
    while True:
        try:
            return await ask()
        except nats.errors.Error:
            await asyncio.sleep(0.1)
