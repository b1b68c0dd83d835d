"""`cutover doctor` on the real system: quiet where all is well, and telling where something was broken on purpose."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nats
import pytest

from shared.bus.server import server_config, start_server
from tests.acceptance.system.background import Background
from tests.acceptance.system.devices import loop_device
from tests.acceptance.system.journal_store import made_again
from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.plain_client import JOURNAL
from tests.acceptance.system.whole_system import CLONING, HOST, ROOT, System

TIMEOUT_S = 30.0

Lines = list[dict[str, str]]


def run_doctor(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "services.console", "doctor", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def read(done: "subprocess.CompletedProcess[str]") -> tuple[int, Lines]:
    """Exit status, and what was found."""
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    return done.returncode, told["checks"]


def doctor(system: System, **environment: str) -> tuple[int, Lines]:
    """The environment overrides keys of the configuration."""
    return read(run_doctor("--config", str(system.config), "--json", **environment))


def of(lines: Lines, check: str, outcome: str) -> list[str]:
    return [line["message"] for line in lines if (line["check"], line["outcome"]) == (check, outcome)]


def test_a_system_on_which_all_is_well_is_told_to_be(system: System, pair: Pair) -> None:
    system.set_up("vol1", pair.source, pair.target)
    length = system.client.journal_length()
    status, lines = doctor(system)
    assert status == 0, lines
    assert {line["outcome"] for line in lines if line["check"] not in {"devices", "open files"}} == {"ok"}
    assert of(lines, "nats sync", "ok")
    assert of(lines, "clocks", "ok") == [
        f"the clocks of the NATS server, host {HOST} and of this machine agree"
    ]
    assert of(lines, "hosts", "ok") == [f"up: {HOST}"]
    assert of(lines, "volumes", "ok") == ["1 open"]
    assert of(lines, "io engine", "ok") == ["the host does device I/O with io_uring"]
    assert any(f"{system.data}/**" in message for message in of(lines, "devices", "ok"))
    assert system.client.journal_length() == length, "it changes nothing"
    assert sorted(path.name for path in system.state_dir.iterdir()) == [
        "lock", "maps", "nbd.sock", "openings", "run", "status.sock", "witnesses",
    ]  # fmt: skip


def test_people_get_one_line_each_and_what_to_do(system: System) -> None:
    done = run_doctor("--config", str(system.config), CUTOVER_HOST_SHUTDOWN_TIMEOUT_S="5")
    assert done.returncode == 1
    *lines, total = done.stdout.splitlines()
    assert all(line.split()[0] in {"ok", "warning", "failure"} for line in lines)
    (time_outs,) = [line for line in lines if "time-outs" in line]
    assert time_outs.startswith("failure time-outs")
    assert time_outs.endswith("→ set host.shutdown_timeout_s to 30 or more")
    assert total.endswith(" 1 failure.")


BROKEN = {
    "CUTOVER_HOST_ALLOWED_DEVICES": "/nowhere/*",
    "CUTOVER_HOST_STATE_DIR": "/dev/shm",
    "CUTOVER_NBD_LISTEN": "unix:///nowhere/nbd.sock",
    "CUTOVER_NATS_MONITOR_URL": "http://127.0.0.1:9",
    "CUTOVER_HOST_INFLIGHT_BUDGET_BYTES": str(64 << 30),
    "CUTOVER_HOST_NAME": "h9",
}
TOLD = (
    ("devices", "warning", "/nowhere/* covers nothing"),
    ("state directory", "failure", "/dev/shm is in memory"),
    ("export", "failure", "no folder /nowhere"),
    ("nats sync", "failure", "monitoring endpoint http://127.0.0.1:9"),
    ("memory", "failure", "1 volume may take 64.1 GiB"),
    ("hosts", "warning", "h9, does not answer"),
)


def test_everything_that_is_broken_is_told_at_once(system: System) -> None:
    status, lines = doctor(system, **BROKEN)
    assert status == 1
    for check, outcome, words in TOLD:
        assert any(words in message for message in of(lines, check, outcome)), (check, lines)
    assert all(line["todo"] for line in lines if line["outcome"] != "ok")


def test_a_configuration_that_is_wrong_is_told_and_the_server_looked_at_all_the_same(system: System) -> None:
    _status, lines = read(
        run_doctor(
            "--config", str(system.config), "--server", system.url, "--json", CUTOVER_HOST_STATEDIR="/x"
        )
    )
    assert any("CUTOVER_HOST_STATEDIR" in message for message in of(lines, "configuration", "failure"))
    assert of(lines, "services", "ok")


def test_a_server_that_is_away_is_told_and_this_machine_looked_at_all_the_same(system: System) -> None:
    status, lines = doctor(system, CUTOVER_NATS_URL="nats://127.0.0.1:9")
    assert status == 1
    assert any("nats://127.0.0.1:9 cannot be reached" in message for message in of(lines, "nats", "failure"))
    assert of(lines, "state sync", "ok")
    assert of(lines, "services", "failure") == []


def test_a_service_and_a_host_that_are_away_are_told_with_what_they_have(
    running: tuple[System, Pair],
) -> None:
    system, _pair = running
    for service in (CLONING, "startup"):
        system.kill_service(service)
    status, lines = doctor(system)
    assert status == 1
    (missing,) = of(lines, "services", "failure")
    assert missing == "nobody answers as cutover-startup, cutover-write-cloning"
    assert of(lines, "hosts", "failure") == [
        f"Host '{HOST}' is away: its write cloning service does not run, or NATS refuses it. It has vol1"
    ]


def test_a_host_that_hangs_is_told_as_this_machines_own(running: tuple[System, Pair]) -> None:
    """It was called somebody else, who was to be ended: an unclean stop of a host that only has to go on."""
    system, _pair = running
    system.signal_service(CLONING, signal.SIGSTOP)
    try:
        status, lines = doctor(system)
    finally:
        system.signal_service(CLONING, signal.SIGCONT)
    assert status == 1
    process = f"(process {system.pid(CLONING)})"
    assert of(lines, "hosts", "failure") == [
        f"this machine's host, {HOST}, runs {process} and does not answer"
    ]
    (export,) = of(lines, "export", "failure")
    assert export.endswith(f"this machine's host {process} runs and does not answer")
    advice = {
        line["todo"] for line in lines if line["check"] in {"services", "hosts", "export"} and line["todo"]
    }
    assert all("Start no other" in each for each in advice), advice


def test_a_closed_volume_is_told_with_the_reason(running: tuple[System, Pair]) -> None:
    system, pair = running
    assert system.stop_service(CLONING) == 0
    moved = pair.source.rename(pair.source.with_suffix(".moved"))
    system.start_service(CLONING)
    status, lines = doctor(system)
    assert status == 1
    (closed,) = of(lines, "volumes", "failure")
    assert closed.startswith("vol1 is closed: ")
    assert str(pair.source) in closed
    moved.rename(pair.source)
    system.client.command("try-again", "vol1")


async def _made_otherwise(url: str) -> None:
    client = await nats.connect(url)
    try:
        await client.jetstream().delete_stream(JOURNAL)
        await client.jetstream().add_stream(name=JOURNAL, subjects=["cutover.journal.>"])
    finally:
        await client.close()


def test_a_stream_that_somebody_else_made_is_told_by_its_settings(stoppable_system: System) -> None:
    system = stoppable_system
    asyncio.run(_made_otherwise(system.url))
    try:
        status, lines = doctor(system)
    finally:
        made_again(system)
    assert status == 1
    (differing,) = of(lines, "streams", "failure")
    for setting in ("deny_delete is false, not true", "deny_purge is false", "discard is "):
        assert setting in differing


def test_a_state_directory_that_others_can_read_is_told(stoppable_system: System) -> None:
    stoppable_system.state_dir.chmod(0o755)
    try:
        _status, lines = doctor(stoppable_system)
    finally:
        stoppable_system.state_dir.chmod(0o700)
    assert any("mode 0755" in each for each in of(lines, "state directory", "warning"))


@pytest.mark.needs_root
def test_a_mounted_device_among_the_allowed_is_told(system: System, tmp_path: Path, pair: Pair) -> None:
    with loop_device(pair.target) as device:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        subprocess.run(["mount", device, tmp_path], check=True)
        try:
            _status, lines = doctor(system, CUTOVER_HOST_ALLOWED_DEVICES=str(device))
        finally:
            subprocess.run(["umount", tmp_path], check=True)
        assert of(lines, "devices", "warning") == [f"{device} is in use: it is mounted at {tmp_path}"]
        _status, lines = doctor(system, CUTOVER_HOST_ALLOWED_DEVICES=str(device))
        assert of(lines, "devices", "ok") == [f"{device}: 1 that can be opened, sectors of 512 bytes"]


def test_credentials_that_may_not_ask_are_told(background: Background, short_path: Path) -> None:
    """Failing, a denied question looks like a service that is slow."""
    users = (
        'authorization { users = [ { user: "a", password: "b", permissions: {'
        ' publish: ["$SRV.>", "$JS.API.INFO"], subscribe: ["_INBOX.>"] } } ] }'
    )
    text = f"{server_config(short_path)}\n{users}\n"
    server = background.run(start_server(short_path, text=text), timeout_s=TIMEOUT_S)
    try:
        url = server.url.replace("nats://", "nats://a:b@")
        status, lines = read(run_doctor("--server", url, "--json"))
    finally:
        background.run(server.stop(), timeout_s=TIMEOUT_S)
    assert status == 1
    denied = [message.lower() for message in of(lines, "permissions", "failure")]
    for asked in ("cutover.control.list", "$js.api.stream.info.cutover_journal", "hearing cutover.>"):
        assert any(message.startswith(f"{asked} is not permitted") for message in denied), denied
    assert all("does not permit" in message for message in denied)
    assert of(lines, "credentials", "ok") == ["the server asks who one is"]
    assert "a:b" not in str(lines)
