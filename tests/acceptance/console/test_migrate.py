"""`cutover migrate` where no services run: it starts them, goes the whole way, and leaves nothing running."""

import asyncio
import os
import shlex
import subprocess
from pathlib import Path

from services.console.state_directory import locked, place
from tests.acceptance.console.whole import make_devices, up
from tests.support.terminal import CTRL_C, cutover, on_terminal, started

DONE, FAILED = 0, 1


def job(folder: Path, *more: str) -> tuple[str, ...]:
    source, target = make_devices(folder)
    return ("migrate", "--name", "vol1", "--source", str(source), "--target", str(target),
            "--state-dir", str(folder / "state"), *more)  # fmt: skip


async def test_one_command_does_the_whole_job(short_path: Path) -> None:
    ended = await cutover(*job(short_path, "--yes"))
    assert ended.status == DONE, ended
    assert (short_path / "source.img").read_bytes() == (short_path / "target.img").read_bytes()
    assert "starting them here" in ended.stderr
    assert "vol1 is cleaned up" in ended.stdout
    with locked(place(short_path / "state")):
        pass


async def test_a_person_with_an_application_goes_the_whole_way(short_path: Path) -> None:
    """With --attach: copying begins when the application connects; cleanup is refused for as long as it is there."""
    async with on_terminal(*job(short_path, "--attach")) as terminal:
        shown = await terminal.until("Waiting for a client")
        uri = next(word for word in shown.split() if word.startswith("nbd+unix:"))
        application = await asyncio.create_subprocess_exec(
            "/usr/bin/python3", "-c",
            "import nbd,sys; h=nbd.NBD(); h.connect_uri(sys.argv[1]); h.pwrite(b'x'*4096, 0); sys.stdin.read(); h.shutdown()",
            uri, stdin=subprocess.PIPE,
        )  # fmt: skip
        await terminal.until("neither abort nor select-source")
        terminal.type("y\n")
        await terminal.until("Clean up vol1 now?")
        terminal.type("y\n")
        await terminal.until("clients-connected")
        await application.communicate(b"")
        terminal.type("y\n")
        assert await terminal.end() == DONE
    assert (short_path / "target.img").read_bytes()[:4096] == b"x" * 4096


async def test_ctrl_c_stops_what_it_started_and_the_line_that_is_told_goes_on(short_path: Path) -> None:
    """Also from another folder: relative paths are told as absolute ones, the state directory among them."""
    state = short_path / "state"
    relative = tuple(os.path.relpath(part) if part.startswith("/") else part for part in job(short_path))
    async with on_terminal(*relative) as terminal:
        await terminal.until("press Enter")
        terminal.type("\n")
        await terminal.until("[y/N]")
        terminal.type(CTRL_C)
        assert await terminal.end() == FAILED
        shown = await terminal.until("Go on with: ")
    with locked(place(state)):
        pass
    line = shlex.split(shown.partition("Go on with: ")[2])
    told = Path(line[line.index("--state-dir") + 1])
    assert told.is_absolute()
    assert told.samefile(state)
    ended = await cutover(*line[1:], "--yes")
    assert ended.status == DONE, ended
    assert "going on from there" in ended.stdout


async def test_refused_devices_leave_nothing_running(short_path: Path) -> None:
    line = job(short_path, "--yes", "--json")
    os.truncate(short_path / "target.img", 4096)
    ended = await cutover(*line)
    assert (ended.status, ended.json["error"]["code"]) == (FAILED, "target-too-small")
    with locked(place(short_path / "state")):
        pass


async def test_services_that_run_on_the_state_directory_are_used(short_path: Path) -> None:
    line = job(short_path, "--yes")
    async with up(short_path / "state", "--allow", str(short_path)):
        ended = await cutover(*line)
        assert ended.status == DONE, ended
        assert "starting" not in ended.stderr


async def test_services_that_run_are_used(short_path: Path) -> None:
    make_devices(short_path)
    async with up(short_path / "state", "--allow", str(short_path)) as running:
        source, target = short_path / "source.img", short_path / "target.img"
        line = ("migrate", "--source", str(source), "--target", str(target), "--yes")
        async with started(*line, server=running.url) as process:
            stdout, stderr = await process.communicate()
        assert process.returncode == DONE, stderr
        assert b"starting" not in stderr
        assert b"source is cleaned up" in stdout
        assert await running.done("list") == []
