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
        f"{program} --no-context {line} --raw",
        env=dict(os.environ) | {"NATS_URL": running.url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return orjson.loads(stdout)


async def all_done(program: Path, running: Up, lines: list[str]) -> None:
    for line in lines:
        answer = await nats(program, running, line)
        assert isinstance(answer, dict)
        assert "error" not in answer, (line, answer)


async def test_rows_of_the_table_do_what_cutover_does(nats_cli: Path, short_path: Path) -> None:
    source, target = make_devices(short_path)
    table = rows()
    setup, sent = next((command, line) for command, line in table.items() if command.startswith("setup "))
    table["setup"] = sent.replace("/dev/vg0/data", str(source)).replace("/dev/vg1/data", str(target))
    assert setup == "setup vol1 --source /dev/vg0/data --target /dev/vg1/data"
    before = ("setup", "throttle vol1 50MiB/s", "sync vol1", "pause vol1", "resume vol1", "throttle vol1 off",
              "query vol1", "list", "faults", "faults vol1")  # fmt: skip
    after = ("select-target vol1", "select-source vol1", "abort vol1")
    at_last = ("select-target vol1", "commit vol1", "cleanup vol1 --disconnect")
    async with up(short_path / "state", "--allow", str(short_path)) as running:
        await all_done(nats_cli, running, [table[command] for command in before])
        await running.done("wait", "vol1", "source-selected", "--timeout", "30")
        await all_done(nats_cli, running, [table[command] for command in after])
        await all_done(nats_cli, running, [table["sync vol1"]])
        await running.done("wait", "vol1", "source-selected", "--timeout", "30")
        await all_done(nats_cli, running, [table[command] for command in at_last])
        assert await running.done("list") == []


async def test_refusal_reads_the_same_for_both(nats_cli: Path, short_path: Path) -> None:
    async with up(short_path / "state") as running:
        answer = await nats(nats_cli, running, "req cutover.control.commit.vol1 ''")
        assert isinstance(answer, dict)
        assert answer["error"] == await running.refused("commit", "vol1", "--yes")
