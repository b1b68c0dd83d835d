"""Cutover itself, through the commands that anyone would use.

One life of `cutover up` gives two stages: the volume in `setup`, and the same volume in `source-selected`. The initial
copy is timed from the `sync` request to the moment at which the journal says `source-selected`, both on the bus:
starting the `cutover` command takes about as long as copying a gibibyte.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from benchmarks.files import Files
from benchmarks.peers import Stage
from benchmarks.processes import stop
from benchmarks.workloads import Caching, System

_NAME = "bench"
_PROGRAM = Path(sysconfig.get_path("scripts")) / "cutover"
_COMMAND_TIMEOUT_S = 60
_COPY_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Running:
    """A `cutover up` that is ready, and where its bus is."""

    pid: int
    server_url: str
    environment: dict[str, str]

    def command(self, *arguments: str) -> dict[str, Any]:
        """Run one command of the operator and return what it says.

        Raises:
            RuntimeError: it was refused or failed.
        """
        result = subprocess.run(
            [_PROGRAM, *arguments, "--json"],
            env={**self.environment, "CUTOVER_NATS_URL": self.server_url},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
        if result.returncode != 0:
            raise RuntimeError(
                f"cutover {' '.join(arguments)}: {result.stdout.strip()} {result.stderr.strip()}"
            )
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer


class Cutover:
    """Everything that `cutover up` starts, with buffered or direct I/O."""

    systems: tuple[System, ...] = (System.CUTOVER_PLAIN, System.CUTOVER_CLONED)
    clones: bool = True

    def stages(self, files: Files, folder: Path) -> Generator[Stage]:
        """Two stages: before the copy and, with the time that it took, after it."""
        with _running(files, folder) as running:
            source, target = str(files.source), str(files.target)
            running.command("setup", _NAME, "--source", source, "--target", target, "--overwrite-target")
            status = running.command("query", _NAME)
            _check_engine(status["io_engine"], files.caching)
            uri: str = status["export_uri"]
            yield Stage(System.CUTOVER_PLAIN, uri)
            seconds = asyncio.run(_time_copy(running.server_url))
            yield Stage(System.CUTOVER_CLONED, uri, seconds)


@contextmanager
def _running(files: Files, folder: Path) -> Iterator[Running]:
    """Start Cutover with a state directory of its own."""
    state = Path(tempfile.mkdtemp(prefix="state-", dir=folder))
    is_direct = files.caching is Caching.DIRECT
    with running_on(state, [folder], {"CUTOVER_HOST_DIRECT_IO": "always"} if is_direct else {}) as running:
        yield running
    shutil.rmtree(state)


@contextmanager
def running_on(
    state: Path, allowed: Sequence[Path], settings: Mapping[str, str], *, survives: bool = True
) -> Iterator[Running]:
    """Run Cutover on a state directory; unless it is killed meanwhile, it is stopped as by SIGTERM, which must succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CUTOVER_")}
    environment |= settings
    allows = [word for path in allowed for word in ("--allow", str(path))]
    with (state / "errors.txt").open("w+b") as errors:
        process = subprocess.Popen(
            [_PROGRAM, "up", "--state-dir", state, *allows, "--port", "0", "--json", "--no-monitoring"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield Running(process.pid, _ready(process), environment)
        except BaseException:
            stop(process)
            errors.seek(0)
            print(errors.read().decode(errors="replace"))
            raise
        status = stop(process)
    if survives and status != 0:
        raise RuntimeError(f"cutover up: status {status} after a clean stop")


def _check_engine(engine: str, caching: Caching) -> None:
    """Nothing would look wrong if the files were opened otherwise than asked, but every figure would be."""
    if ("direct" in engine) != (caching is Caching.DIRECT):
        raise RuntimeError(f"Cutover does I/O by {engine!r}, and {caching} was asked for")


def _ready(process: subprocess.Popen[bytes]) -> str:
    """Wait for the line that says that everything runs; the URL of the NATS server."""
    line = process.stdout.readline() if process.stdout is not None else b""
    answer = json.loads(line) if line else {}
    if "nats_url" not in answer:
        raise RuntimeError(f"cutover up is not ready: {line.decode() or 'it has ended'}")
    url: str = answer["nats_url"]
    return url


async def _time_copy(server_url: str) -> float:
    client = await nats.connect(server_url)
    try:
        states = await client.subscribe(f"cutover.journal.{_NAME}.state")
        await client.flush()
        begin = time.monotonic()
        await _sync(client)
        async with asyncio.timeout(_COPY_TIMEOUT_S):
            await _state_reached(states, "source-selected")
        return time.monotonic() - begin
    finally:
        await client.close()


async def _sync(client: Client) -> None:
    reply = json.loads(
        (await client.request(f"cutover.control.sync.{_NAME}", b"", timeout=_COMMAND_TIMEOUT_S)).data
    )
    if "error" in reply or "code" in reply:
        raise RuntimeError(f"sync was refused: {reply}")


async def _state_reached(states: Subscription, wanted: str) -> None:
    async for message in states.messages:
        state = json.loads(message.data)["state"]
        if state == wanted:
            return
        if state == "setup":
            raise RuntimeError(f"the copy failed: {message.data.decode()}")
