"""The table in README: every command of `cutover` beside the request that anyone can send with the stock `nats` program."""

import asyncio
import os
import re
from pathlib import Path

import orjson
import pytest

from tests.acceptance.console.whole import Up, make_devices, up

README = Path(__file__).parents[3] / "README.md"
ROW = re.compile(r"^\| `cutover (?P<cutover>[^`]+)` +\| `nats (?P<nats>[^`]+)` +\|$", re.MULTILINE)
pytestmark = pytest.mark.nats_cli


def rows() -> dict[str, str]:
    """The table: what follows `nats`, by the command of `cutover`."""
    found = {match["cutover"]: match["nats"] for match in ROW.finditer(README.read_text())}
    assert len(found) >= 12, "the table has gone from README"
    return found


async def nats(program: Path, running: Up, line: str) -> object:
    """Send what a row says, in a shell as a person would."""
    process = await asyncio.create_subprocess_shell(
        f"{program} --raw {line}" if line.startswith("req") and "--raw" not in line else f"{program} {line}",
        env=dict(os.environ) | {"NATS_URL": running.url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return orjson.loads(stdout)


async def test_rows_of_the_table_do_what_cutover_does(nats_cli: Path, short_path: Path) -> None:
    source, target = make_devices(short_path)
    table = {command.split()[0]: line for command, line in rows().items()}
    table["setup"] = (
        table["setup"].replace("/dev/vg0/data", str(source)).replace("/dev/vg1/data", str(target))
    )
    order = ("setup", "throttle", "sync", "pause", "resume", "query", "list", "faults")
    async with up(short_path / "state", "--allow", str(short_path)) as running:
        for command in order:
            answer = await nats(nats_cli, running, f"{table[command]}")
            assert isinstance(answer, dict)
            assert "error" not in answer, (command, answer)
        await running.done("wait", "vol1", "source-selected", "--timeout", "30")
        for command in ("select-target", "select-source", "select-target", "commit", "cleanup"):
            answer = await nats(nats_cli, running, table[command])
            assert isinstance(answer, dict)
            assert "error" not in answer, (command, answer)
        assert await running.done("list") == []


async def test_refusal_reads_the_same_for_both(nats_cli: Path, short_path: Path) -> None:
    async with up(short_path / "state") as running:
        answer = await nats(nats_cli, running, "req cutover.control.commit.vol1 ''")
        assert isinstance(answer, dict)
        assert answer["error"] == await running.refused("commit", "vol1", "--yes")


async def test_services_are_found_by_the_stock_program(nats_cli: Path, short_path: Path) -> None:
    async with up(short_path / "state") as running:
        found = await nats(nats_cli, running, "micro list --json")
        assert isinstance(found, list)
        assert {
            "cutover-state-control",
            "cutover-fault-recording",
            "cutover-startup",
            "cutover-write-cloning",
        } <= {service["name"] for service in found}
