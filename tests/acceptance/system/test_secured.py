"""The whole system with credentials and TLS, from the files of `cutover init`: it works, and what is not meant to, does not."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.reference.files import PAGE
from services.console.local_nats import any_port
from tests.acceptance.system.application import Application
from tests.acceptance.system.background import Background
from tests.acceptance.system.devices import MIB, digest, run
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.remote import faulty
from tests.acceptance.system.secured import SecuredSystem, secured_system
from tests.acceptance.system.test_events_page import COMMANDS
from tests.acceptance.system.whole_system import CLONING, HOST, ROOT, SERVICES


@pytest.fixture(scope="module")
def secured(background: Background) -> Iterator[SecuredSystem]:
    with secured_system(background) as system:
        yield system


@pytest.fixture
def system(secured: SecuredSystem) -> Iterator[SecuredSystem]:
    """Whatever a test does, nobody was denied anything that he has to do, and no log holds a secret."""
    yield secured
    secured.mend()
    secured.clean_up_all()
    logs = [secured.log(service) for service in SERVICES]
    assert not [line for log in logs for line in log.splitlines() if "does not permit" in line]
    assert not [seed for log in logs for seed in secured.seeds() if seed in log]


def test_whole_life_with_a_kill_a_clean_stop_and_a_commit(system: SecuredSystem) -> None:
    pair = make_pair(system, size_bytes=8 * MIB)
    system.operate("setup", "vol1", "--source", str(pair.source), "--target", str(pair.target))
    system.client.command("sync", "vol1")
    system.client.until_state("vol1", "source-selected")
    system.kill_service(CLONING)
    system.start_service(CLONING)
    status = system.operate("query", "vol1")
    assert (status["state"], status["error_flag"]) == ("setup", False)
    assert [fault["cause"] for fault in status["faults"]] == ["unclean-shutdown"]  # type: ignore[attr-defined]

    with Application(system.export("vol1"), blocks=1024) as application:
        system.client.command("sync", "vol1")
        system.client.until_state("vol1", "source-selected")
        system.client.command("select-target", "vol1")
        application.until_operations(100)
        assert system.stop_service(CLONING) == 0
        report = application.stop()
    assert report.differences(pair.target) == []
    system.start_service(CLONING)
    assert system.client.query("vol1")["state"] == "target-selected"
    system.operate("commit", "vol1", "--yes", "--verify")
    system.client.until("vol1", lambda each: not each["error_flag"])
    system.operate("cleanup", "vol1", "--yes")
    assert digest(pair.source) == digest(pair.target)
    assert system.client.refused("query", "vol1").code == "unknown-migration"


def test_target_fault_is_recorded(system: SecuredSystem) -> None:
    pair = make_pair(system)
    with faulty(pair.target, "pwrite") as target:
        system.set_up("vol1", pair.source, target.uri)
        system.client.command("sync", "vol1")
        system.client.until_state("vol1", "source-selected")
        target.fail()
        with Application(system.export("vol1")) as application:
            application.until_operations(100)
            report = application.stop()
        assert report.errors == []
        system.client.until("vol1", lambda each: each["state"] == "setup" and not each["error_flag"])
        assert system.client.words("vol1")[-3:] == ["fault target", "state setup", "flag-clear"]
        system.clean_up("vol1")


@pytest.mark.nats_cli
def test_the_stock_program_is_an_operator_with_two_options(system: SecuredSystem, nats_cli: Path) -> None:
    pair = make_pair(system)

    def nats(*arguments: str) -> str:
        done = system.nats_program(nats_cli, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    devices = json.dumps({"source": str(pair.source), "target": str(pair.target)})
    assert json.loads(nats("req", "--raw", "cutover.control.setup.vol1", devices))["state"] == "setup"
    assert json.loads(nats("req", "--raw", "cutover.control.query.vol1", ""))["name"] == "vol1"
    listed = nats("micro", "ls")
    assert all(f"cutover-{service.replace('_', '-')}" in listed for service in SERVICES)
    assert "cutover.control.commit.*" in nats("micro", "info", "cutover-state-control")
    last = ("stream", "get", "CUTOVER_JOURNAL", "--last-for=cutover.journal.vol1.state", "--json")
    assert json.loads(nats(*last))["subject"] == "cutover.journal.vol1.state"
    assert "CUTOVER_PROGRESS" in nats("stream", "ls", "--all")


@pytest.mark.nats_cli
def test_the_operator_reads_the_stream_of_the_journal_and_takes_a_copy_of_it(
    system: SecuredSystem, nats_cli: Path, tmp_path: Path
) -> None:
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    follow = ("sub", "--stream", "CUTOVER_JOURNAL", "--all", "--wait=2s", "cutover.journal.vol1.>")
    done = system.nats_program(nats_cli, *follow)
    assert '"trigger":"setup"' in done.stdout, done
    assert "violation" not in done.stdout + done.stderr
    copy = tmp_path / "copy"
    done = system.nats_program(nats_cli, "stream", "backup", "CUTOVER_JOURNAL", str(copy), "--no-progress")
    assert done.returncode == 0, done
    assert {"backup.json", "stream.arc.s2"} == {each.name for each in copy.rglob("*") if each.is_file()}
    assert "violation" not in done.stdout + done.stderr


def options_on_the_page(system: SecuredSystem) -> dict[str, list[str]]:
    """By role: what the page about events says that each command takes more, where NATS asks for credentials."""
    found = re.findall(r"^nats (--server tls:.*) …$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    url = system.installation.config("operator").url
    there = [each.replace("tls://127.0.0.1:4222", url).replace("DIR", str(system.etc)) for each in found]
    return dict(zip(("operator", "monitor"), map(shlex.split, there), strict=True))


@pytest.mark.nats_cli
def test_the_options_on_the_page_about_events_do(system: SecuredSystem, nats_cli: Path) -> None:
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("sync", "vol1")
    system.client.until_state("vol1", "source-selected")
    for role, options in reversed(
        options_on_the_page(system).items()
    ):  # the operator's last: he ends the attempt
        for command in COMMANDS:
            is_listening = command[1] == "sub"
            gives_command = any(word in " ".join(command) for word in ("control.throttle", "control.abort"))
            if role == "monitor" and (gives_command or "--stream" in command):
                continue
            done = subprocess.run(
                [nats_cli, "--no-context", *options, *command[1:], *(["--wait=1s"] if is_listening else [])],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert "iolation" not in done.stdout + done.stderr, command
            assert is_listening or done.returncode == 0, (command, done)


@pytest.mark.nats_cli
def test_an_operator_neither_writes_nor_empties_the_journal_nor_speaks_to_hosts(
    system: SecuredSystem, nats_cli: Path
) -> None:
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    before = system.client.journal("vol1")
    for arguments in (
        ("req", "--timeout=1s", "cutover.journal.vol1.state", "{}"),
        ("req", "--timeout=1s", f"cutover.host.{HOST}.abort.vol1", "{}"),
        ("stream", "purge", "CUTOVER_JOURNAL", "--force", "--timeout=1s"),
        ("stream", "rm", "CUTOVER_JOURNAL", "--force", "--timeout=1s"),
    ):
        done = system.nats_program(nats_cli, *arguments)
        assert "permissions violation" in done.stderr.lower(), (arguments, done)
    assert system.client.journal("vol1") == before


def test_volume_over_tcp_is_for_clients_with_a_certificate(system: SecuredSystem) -> None:
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    port = any_port()
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING, under=("env", f"CUTOVER_NBD_LISTEN=tcp://127.0.0.1:{port}"))
    volume = f"nbds://127.0.0.1:{port}/vol1"
    with_certificate = f"{volume}?tls-certificates={system.etc}/tls/nbd-client"
    assert run("nbdinfo", "--size", with_certificate).strip() == str(pair.source.stat().st_size)
    done = subprocess.run(
        ["nbdinfo", "--size", volume], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode != 0
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)


def test_command_without_credentials_is_refused_in_a_sentence(system: SecuredSystem) -> None:
    done = _cutover(system, CUTOVER_NATS_URL=system.installation.config("operator").url)
    assert done.returncode == 1
    assert "is not accepted by this machine's own authorities (nats.tls_ca_file names another)" in done.stderr
    operator = system.installation.config("operator")
    done = _cutover(system, CUTOVER_NATS_URL=operator.url, CUTOVER_NATS_TLS_CA_FILE=str(operator.tls_ca_file))
    assert done.returncode == 1
    assert done.stderr.startswith("not-permitted: ")
    assert "the NATS server refuses these credentials" in done.stderr
    done = _cutover(system, CUTOVER_CONFIG=str(system.etc / "services/monitoring.toml"))
    assert done.returncode == 0, done.stderr  # to look on is what the monitor is for
    done = _cutover(
        system,
        CUTOVER_NATS_URL=operator.url,
        CUTOVER_NATS_TLS_CA_FILE=str(operator.tls_ca_file),
        CUTOVER_NATS_NKEY_SEED_FILE=str(operator.nkey_seed_file),
    )
    assert done.returncode == 0, done.stderr


def test_doctor_comes_with_the_credentials_of_its_configuration(system: SecuredSystem) -> None:
    done = system.cutover("doctor", "--config", str(system.etc / "operator.toml"))
    assert "certificate is not accepted" not in done.stdout + done.stderr
    assert "refuses these credentials" not in done.stdout + done.stderr
    assert "2.15" in done.stdout, done.stdout + done.stderr


def test_monitor_who_gives_a_command_is_refused_by_its_subject(system: SecuredSystem) -> None:
    done = _cutover(
        system, "--json", "sync", "vol1", CUTOVER_CONFIG=str(system.etc / "services/monitoring.toml")
    )
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "not-permitted"
    assert "monitor.nk to publish to cutover.control.sync.vol1" in error["message"]


def test_wrong_file_ends_the_command_by_key_and_file(system: SecuredSystem) -> None:
    done = _cutover(
        system,
        CUTOVER_CONFIG=str(system.etc / "operator.toml"),
        CUTOVER_NATS_NKEY_SEED_FILE=str(system.etc / "tls/ca.pem"),
    )
    assert done.returncode == 2
    assert "nats.nkey_seed_file: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_service_with_the_key_of_another_ends_with_a_sentence(
    system: SecuredSystem, service: str, tmp_path: Path
) -> None:
    seeds = system.etc / "secrets"
    foreign = {
        "CUTOVER_NATS_NKEY_SEED_FILE": str(seeds / "monitor.nk"),
        "CUTOVER_NATS_INBOX_PREFIX": "_INBOX_monitor",
    }
    unknown = tmp_path / "unknown.nk"
    unknown.write_text("SUAKTTOGFFI4IXSNZRFKRXWUV6LXR4FLJXQ24CVLZYD4UPPLBB333J6FCI\n")
    elsewhere = {"CUTOVER_HOST_STATE_DIR": str(tmp_path / "state")} if service == CLONING else {}
    for changed, sentence in (
        (foreign, "does not permit the user of"),
        (
            {"CUTOVER_NATS_NKEY_SEED_FILE": str(unknown)},
            "the NATS server refuses these credentials (the user of",
        ),
    ):
        done = subprocess.run(
            ["env", *(f"{name}={value}" for name, value in (changed | elsewhere).items()),
             sys.executable, "-m", f"services.{service}", "--config", str(system.config_of(service))],
            cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert sentence in done.stderr
        deaf = [line for line in done.stderr.splitlines() if "to subscribe to" in line]
        assert len(deaf) <= 1, "one mistake, one line"
        assert "Traceback" not in done.stderr


def _cutover(
    system: SecuredSystem, *arguments: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["env", "-u", "CUTOVER_NATS_URL", *(f"{name}={value}" for name, value in environment.items()),
         sys.executable, "-m", "services.console", *(arguments or ("list",))],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def doctor(system: SecuredSystem, file: Path, **environment: str) -> tuple[int, list[dict[str, str]]]:
    """Exit status, and what was found."""
    done = _cutover(system, "doctor", "--json", "--config", str(file), **environment)
    assert done.stderr == ""
    lines: list[dict[str, str]] = json.loads(done.stdout)["checks"]
    return done.returncode, lines


def of(lines: list[dict[str, str]], check: str) -> list[str]:
    return [line["message"] for line in lines if line["check"] == check]


NOT_CHECKED = {  # by file: what its role may not ask
    "operator.toml": None,
    "services/monitoring.toml": "the journal's room:",
    "services/bootstrap.toml": "the journal's room, the volumes of all hosts:",
    "services/state_control.toml": "the stream CUTOVER_PROGRESS, the journal's room, cutover-fault-recording, ",
    "services/startup.toml": "the stream CUTOVER_PROGRESS, the journal's room, cutover-fault-recording, ",
    "services/fault_recording.toml": "the stream CUTOVER_JOURNAL, the stream CUTOVER_PROGRESS, the journal's room, ",
    f"hosts/{HOST}.toml": "the stream CUTOVER_JOURNAL, the stream CUTOVER_PROGRESS, the journal's room, ",
}


def test_doctor_knows_every_file_of_the_installation(system: SecuredSystem) -> None:
    files = {str(file.relative_to(system.etc)) for file in system.etc.rglob("*.toml")}
    assert files == set(NOT_CHECKED)


@pytest.mark.parametrize("file", NOT_CHECKED)
def test_doctor_finds_a_healthy_installation_well_with_every_file_of_it(
    system: SecuredSystem, file: str
) -> None:
    """It asks what the role of the file may, and says what it leaves out; the server denies it nothing."""
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    status, lines = doctor(system, system.etc / file)
    machine = {"devices", "open files"}  # of the machine that the test runs on
    assert [line for line in lines if line["outcome"] != "ok" and line["check"] not in machine] == []
    assert status == 0
    told, wanted = of(lines, "not checked"), NOT_CHECKED[file]
    assert bool(told) == (wanted is not None)
    assert all(wanted in line and line.endswith("use operator.toml") for line in told if wanted)
    assert of(lines, "nats sync") == ["the journal syncs before it acknowledges"]
    if file.startswith("hosts/"):
        assert of(lines, "hosts") == [f"this machine's host, {HOST}, answers"]
        assert of(lines, "volumes") == ["1 open on this machine's host"]
        assert of(lines, "export") == [f"unix://{system.socket} is listened on"]
        assert of(lines, "io engine") == ["the host does device I/O with io_uring"]
    named = of(lines, "files")
    assert named[0].startswith(f"nats.nkey_seed_file: {system.etc}/secrets/")
    assert f"nats.tls_ca_file: {system.etc}/tls/" in named[1]
    assert "good for" in named[1]


def test_doctor_with_a_hosts_file_tells_that_the_host_is_away(system: SecuredSystem) -> None:
    system.kill_service(CLONING)
    status, lines = doctor(system, system.config_of(CLONING))
    assert status == 0
    assert of(lines, "hosts") == [f"this machine's host, {HOST}, does not answer"]
    _status, lines = doctor(system, system.config_of("startup"))
    assert of(lines, "services") == ["nobody answers as cutover-write-cloning"]


def test_doctor_tells_of_a_key_that_others_can_read(system: SecuredSystem) -> None:
    key = system.etc / "secrets/operator.nk"
    key.chmod(0o644)
    try:
        _status, lines = doctor(system, system.etc / "operator.toml")
    finally:
        key.chmod(0o600)
    assert any(line["outcome"] == "warning" and "mode 0644" in line["message"] for line in lines)


def test_the_example_of_the_doctor_is_what_an_installation_shows(system: SecuredSystem) -> None:
    """But for what is of the machine that the example is from, and numbers."""
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    page = (ROOT / "docs/OPERATING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^\$ cutover doctor --config [^\n]*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shown = system.cutover("doctor", "--config", str(system.config_of(CLONING))).stdout
    for here, there in (
        (str(system.etc), "/etc/cutover"),
        (str(system.state_dir), "/var/lib/cutover/host1"),
    ):
        shown = shown.replace(here, there)
    shown = _without_numbers(re.sub(rf"\b{HOST}\b", "host1", shown))
    lines = [line for line in _without_numbers(example).splitlines() if line.startswith("ok ")]
    assert len(lines) > 15
    for line in lines:
        beginning, _, end = line.partition("…")
        assert any(each.startswith(beginning) and each.endswith(end) for each in shown.splitlines()), (
            f"{line}\n{shown}"
        )


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)*", "N", text)
