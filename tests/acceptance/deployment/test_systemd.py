"""The units of deploy/systemd: sound by systemd's own judgement, the volumes closed first, and run by a real systemd."""

import json
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.deployment.composition import read_composition
from tests.acceptance.deployment.machine import Machine, booted, lay_out
from tests.support.installations import run_init

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "deploy" / "systemd"
EXPOSURE_MAX = 15  # of 100, by `systemd-analyze security`
EXPOSURE_OF_DEVICES_MAX = 19
MIB = 1 << 20
MACHINE, HOST = "DB-01", "db-01"  # a machine's name may be none of a host
OTHERS = ("nats", "bootstrap", "fault-recording", "state-control", "startup")
STOP_MARGIN_S = 10.0


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, with the programs where they are here."""
    folder = tmp_path_factory.mktemp("units")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/cutover/bin", sysconfig.get_path("scripts"))
        (folder / unit.name).write_text(text)
    return folder


def analyze(*words: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_finds_nothing_wrong_with_the_units(units: Path) -> None:
    files = [str(file) for file in units.iterdir() if file.suffix != ".conf"]
    assert len(files) == 9
    assert analyze("verify", "--man=no", *files) == ""


def test_a_machine_with_docker_stops_the_volumes_in_order_before_docker_stops_all_at_once(
    tmp_path: Path,
) -> None:
    unit = ROOT / "deploy/docker/cutover-compose.service"
    text = unit.read_text()
    (tmp_path / unit.name).write_text(text.replace("/usr/bin/docker ", "/bin/true ").replace("/opt/", "/"))
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    assert analyze("verify", "--man=no", str(tmp_path / unit.name), str(tmp_path / "docker.service")) == ""
    after = re.findall(r"^After=(.*)$", text, re.MULTILINE)
    assert "docker.service" in after[0].split(), "what is behind it is stopped before it"
    assert re.search(r"^ExecStop=/usr/bin/docker compose stop$", text, re.MULTILINE)
    periods = {
        name: service.stop_grace_period
        for name, service in read_composition({}, ROOT / "compose.yaml").services.items()
    }
    one_after_the_other = periods["write_cloning"] + periods["startup"] + periods["nats"]
    found = re.search(r"^TimeoutStopSec=(\d+)min$", text, re.MULTILINE)
    assert found is not None
    assert 60 * int(found[1]) > one_after_the_other


def name_host(folder: Path) -> None:
    """The commands of the page for a machine whose host is called otherwise."""
    page = (ROOT / "docs/OPERATING.md").read_text(encoding="utf-8")
    (commands,) = re.findall(rf"^```\n(host={HOST}\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    there = commands.replace("/etc/systemd/system", str(folder)).replace("systemctl daemon-reload", "")
    subprocess.run(["sh", "-euc", there], check=True, timeout=60)


def test_a_machine_that_is_called_otherwise_than_its_host_takes_a_drop_in(
    units: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "units"
    shutil.copytree(units, folder)
    name_host(folder)
    assert analyze("verify", "--man=no", str(folder / "cutover-write-cloning.service")) == ""
    (drop_in,) = (folder / "cutover-write-cloning.service.d").iterdir()
    assert drop_in.read_text().splitlines() == [
        "[Service]",
        f"LoadCredential=config.toml:/etc/cutover/hosts/{HOST}.toml",
        f"LoadCredential=nkey:/etc/cutover/secrets/write_cloning-{HOST}.nk",
    ]


def test_every_unit_is_enabled_by_a_command_of_the_page() -> None:
    page = (ROOT / "docs/OPERATING.md").read_text(encoding="utf-8").replace("\\\n", "")
    told = {
        unit
        for line in re.findall(r"^systemctl enable --now (.*)$", page, re.MULTILINE)
        for unit in line.split()
    }
    units = {each.name for each in UNITS.iterdir() if "[Install]" in each.read_text()}
    assert {each.removesuffix(".service") for each in units} <= told


def test_the_authorities_are_read_where_they_are_replaced(units: Path) -> None:
    """What systemd hands over is a copy of the start: who connects anew would never see the new authority."""
    programs = [text for each in units.glob("*.service") if "/python -m " in (text := each.read_text())]
    assert len(programs) == 6
    for text in programs:
        assert re.findall(r"CUTOVER_NATS_TLS_CA_FILE=(\S+)", text) == ["/etc/cutover/tls/ca.pem"]
        assert "LoadCredential=ca.pem" not in text


def test_no_python_file_of_the_working_directory_is_run(units: Path) -> None:
    programs = [text for each in units.glob("*.service") if "/python -m " in (text := each.read_text())]
    assert len(programs) == 6
    assert all("\nEnvironment=PYTHONSAFEPATH=1\n" in text for text in programs)


def test_the_services_are_kept_in_bounds(units: Path) -> None:
    for file in units.glob("*.service"):
        most = EXPOSURE_OF_DEVICES_MAX if file.stem == "cutover-write-cloning" else EXPOSURE_MAX
        analyze("security", "--offline=true", f"--threshold={most}", "--no-pager", str(file))


def test_the_volumes_are_closed_before_what_their_clean_stop_needs_and_have_the_time(units: Path) -> None:
    text = (units / "cutover-write-cloning.service").read_text()
    behind = {unit for line in re.findall(r"^After=(.*)$", text, re.MULTILINE) for unit in line.split()}
    assert {f"cutover-{other}.service" for other in OTHERS} <= behind
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= 60.0 + STOP_MARGIN_S, "60 s is the default of host.shutdown_timeout_s"


@pytest.fixture(scope="module")
def machine(installed: Path, scratch: Path) -> Iterator[Machine]:
    """A machine with a systemd of its own, on which everything is enabled."""
    folder = scratch / "machine"
    lay_out(folder, UNITS)
    name_host(folder / "units")
    made = run_init(
        folder / "etc", f"--host={HOST}", "--installed-at=/etc/cutover", "--nats-store=/var/lib/cutover-nats/journal",
        "--allow=/srv/volumes/*",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    for name in ("old.img", "new.img"):
        with (folder / "volumes" / name).open("wb") as device:
            device.truncate(16 * MIB)
    with booted(folder, installed, MACHINE) as running:
        yield running


@pytest.mark.slow
@pytest.mark.needs_root
@pytest.mark.timeout(600)  # it may have to build the image
def test_a_real_systemd_runs_them(machine: Machine) -> None:
    """Readiness, the inherited socket, users and credentials of each service, its bounds, and the order of the stop."""
    services = [f"cutover-{name}.service" for name in (*OTHERS, "write-cloning", "monitoring")]
    machine.until_active([*services, "cutover-nbd.socket"])
    assert machine.show("cutover-write-cloning.service", "StatusText") == [
        f"Host {HOST} serves /run/cutover/nbd.sock."
    ]
    assert machine.show("cutover-startup.service", "StatusText", "NotifyAccess") == [
        "It admits hosts.",
        "main",
    ]
    assert machine.do("stat", "--format=%U %G %a", "/run/cutover/nbd.sock").split() == [
        "root",
        "cutover",
        "660",
    ]

    def cutover(*words: str) -> str:
        return machine.do("env", "CUTOVER_CONFIG=/etc/cutover/operator.toml", "cutover", *words)

    cutover("setup", "vol1", "--source", "/srv/volumes/old.img", "--target", "/srv/volumes/new.img")
    cutover("sync", "vol1")
    cutover("wait", "vol1", "source-selected")
    status = json.loads(cutover("query", "vol1", "--json"))
    assert status["error_flag"]
    assert status["io_engine"] == "io_uring", "the filter of system calls is narrower than it should be"
    uri = "nbd+unix:///vol1?socket=/run/cutover/nbd.sock"
    assert machine.do("nbdinfo", "--size", uri) == f"{16 * MIB}\n"

    machine.do("systemctl", "stop", "cutover.target")  # in their order
    machine.do("systemctl", "stop", "cutover*")  # and waits
    for unit in services:
        assert machine.show(unit, "ActiveState", "Result", "ExecMainStatus") == [
            "inactive",
            "success",
            "0",
        ], machine.log()
    assert machine.run("nbdinfo", "--size", uri).returncode != 0, "the socket would start the host again"
    assert "the stop was clean" in machine.log()

    machine.do("systemctl", "start", "cutover.target")
    machine.until_active([*services, "cutover-nbd.socket"])
    assert json.loads(cutover("query", "vol1", "--json"))["state"] == "source-selected"


@pytest.mark.slow
@pytest.mark.needs_root
@pytest.mark.timeout(600)  # it may have to build the image
def test_the_authority_is_replaced_and_nobody_is_cut_off(machine: Machine) -> None:
    """Step by step as docs/SECURITY.md has it; services and the host connect anew after it.

    Cause: they had a copy of `tls/ca.pem` that was made when they were started. Failing: nobody who runs takes the new
    certificate of NATS after its restart. Passing: all do, with the processes that were there before.
    """
    running = [f"cutover-{name}.service" for name in (*OTHERS[2:], "write-cloning", "monitoring")]
    machine.until_active([*running, "cutover-bootstrap.service"])
    machine.until_well("services", "hosts", "streams")
    before = [machine.show(unit, "MainPID") for unit in running]
    machine.do("cutover", "init", "/root/new", f"--host={HOST}")
    machine.do("sh", "-c", "cat /root/new/tls/ca.pem >>/etc/cutover/tls/ca.pem")
    machine.do("cutover", "init", "/etc/cutover", "--renew", "--ca-key", "/root/new/tls/ca-key.pem")
    machine.do("cp", "/root/new/tls/ca-key.pem", "/etc/cutover/tls/ca-key.pem")
    machine.do("systemctl", "reload", "cutover-nats")
    machine.do("systemctl", "restart", "cutover-nats")
    machine.until_well("services", "hosts", "streams")
    assert [machine.show(unit, "MainPID") for unit in running] == before

    machine.do("sh", "-c", "cat /root/new/tls/ca.pem >/etc/cutover/tls/ca.pem")
    machine.do("cutover", "init", "/etc/cutover", "--renew")
    machine.do("systemctl", "restart", *running)
    machine.until_well("services", "hosts", "streams")


@pytest.mark.slow
@pytest.mark.needs_root
@pytest.mark.timeout(600)  # it may have to build the image
def test_a_host_that_may_not_read_its_key_is_not_started_again_and_again(machine: Machine) -> None:
    """What `--add-host` makes is root's until it is given to the user `cutover`."""
    unit, key = "cutover-write-cloning.service", f"/etc/cutover/tls/nbd-{HOST}-key.pem"
    machine.until_active([unit])
    machine.do("systemctl", "stop", unit)
    machine.do("chown", "root", key)
    assert machine.run("systemctl", "start", unit).returncode != 0
    assert machine.show(unit, "ActiveState", "ExecMainStatus", "NRestarts") == ["failed", "2", "0"]
    assert f"nbd.tls_key_file: {key}: Permission denied" in machine.log()
    machine.do("chown", "cutover", key)
    machine.do("systemctl", "start", unit)
