"""`cutover init`: which files with which content and modes; nothing overwritten, and nothing half-done."""

import ipaddress
import os
import ssl
import stat
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest
from cryptography import x509

from services.console import new_folder
from services.console.application import run
from services.console.certificates import general_name
from services.console.failures import ConsoleError
from services.console.installation import HostPlan, Plan, files_of
from services.console.installing import next_commands
from services.console.new_folder import File, write
from shared.bus.nkeys import key_pair
from shared.config.load import load

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
AT = PurePosixPath("/etc/cutover")
PLAN = Plan(
    installed_at=AT,
    hosts=(HostPlan(name="h1", addresses=("storage.example", "10.0.0.7")), HostPlan(name="h2")),
    nats_hosts=("nats.example", "fd00::1"),
    state_dir=PurePosixPath("/var/lib/cutover"),
    allow=("/srv/*", "/dev/vg0/*"),
)
ROLES = {
    "bootstrap", "fault_recording", "state_control", "startup", "monitor", "operator", "write_cloning-h1", "write_cloning-h2",
}  # fmt: skip
CONFIGURATIONS = {
    "services/bootstrap.toml": "bootstrap",
    "services/fault_recording.toml": "fault_recording",
    "services/state_control.toml": "state_control",
    "services/startup.toml": "startup",
    "services/monitoring.toml": "monitor",
    "operator.toml": "operator",
    "hosts/h1.toml": "write_cloning-h1",
    "hosts/h2.toml": "write_cloning-h2",
}


@pytest.fixture(scope="module")
def files() -> dict[str, File]:
    return {str(path): file for path, file in files_of(PLAN, NOW).items()}


def text(files: dict[str, File], path: str) -> str:
    return files[path].content.decode()


def certificate(files: dict[str, File], path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files[path].content)


def names(of: x509.Certificate) -> set[str]:
    found = of.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(each.value) for each in found}


# ------------------------------------------------------------------ what is made


def test_every_role_has_a_key_of_its_own_that_the_server_knows(files: dict[str, File]) -> None:
    seeds = {Path(path).stem: file for path, file in files.items() if path.startswith("secrets/")}
    assert set(seeds) == ROLES
    assert all(file.mode == 0o600 for file in seeds.values())
    server = text(files, "nats/nats-server.conf")
    public = {name: key_pair(file.content.decode().strip()).public_key for name, file in seeds.items()}
    assert len(set(public.values())) == len(ROLES)
    assert all(server.count(f"nkey: {key}\n") == 1 for key in public.values())


def test_no_secret_stands_in_a_file_that_others_may_read(files: dict[str, File]) -> None:
    for path, file in files.items():
        is_secret = b"PRIVATE KEY" in file.content or path.endswith(".nk")
        assert file.mode == (0o600 if is_secret else 0o644), path


@pytest.mark.parametrize("path", CONFIGURATIONS)
def test_every_configuration_is_one_and_names_what_its_role_has(
    files: dict[str, File], path: str, tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(files[path].content)
    config = load(file, {})
    assert config.nats.url == "tls://nats.example:4222"
    assert config.nats.nkey_seed_file == f"/etc/cutover/secrets/{CONFIGURATIONS[path]}.nk"
    assert config.nats.tls_ca_file == "/etc/cutover/tls/ca.pem"
    assert (config.host is not None) == path.startswith("hosts/")
    if config.host is not None:
        assert config.nbd.tls_certificate_file == f"/etc/cutover/tls/nbd-{config.host.name}.pem"
        assert config.nbd.tls_key_file == f"/etc/cutover/tls/nbd-{config.host.name}-key.pem"
        assert config.nbd.tls_client_ca_file == "/etc/cutover/tls/ca.pem"


def test_a_host_has_its_name_its_state_and_its_devices(files: dict[str, File]) -> None:
    host = tomllib.loads(text(files, "hosts/h2.toml"))["host"]
    assert host == {
        "name": "h2",
        "state_dir": "/var/lib/cutover/h2",
        "allowed_devices": ["/srv/*", "/dev/vg0/*"],
    }


def test_paths_are_those_of_where_it_will_be_used(files: dict[str, File]) -> None:
    server = text(files, "nats/nats-server.conf")
    for path in ("tls/nats.pem", "tls/nats-key.pem", "nats/jetstream"):
        assert f'"{AT / path}"' in server
    assert "sync_interval: always" in server
    assert 'http: "127.0.0.1:8222"' in server


def test_without_a_name_for_others_nats_listens_for_this_machine_alone() -> None:
    alone = Plan(installed_at=AT, hosts=(HostPlan(name="h1"),), state_dir=AT)
    made = {str(path): file for path, file in files_of(alone, NOW).items()}
    assert 'host: "127.0.0.1"' in text(made, "nats/nats-server.conf")
    assert 'url = "tls://127.0.0.1:4222"' in text(made, "operator.toml")


# ------------------------------------------------------------------ certificates


def test_certificates_name_loopback_and_what_was_given(files: dict[str, File]) -> None:
    loopback = {"localhost", "127.0.0.1", "::1"}
    assert names(certificate(files, "tls/nats.pem")) == {*loopback, "nats.example", "fd00::1"}
    assert names(certificate(files, "tls/nbd-h1.pem")) == {*loopback, "h1", "storage.example", "10.0.0.7"}
    assert names(certificate(files, "tls/nbd-h2.pem")) == {*loopback, "h2"}


def test_certificates_live_as_long_as_they_should(files: dict[str, File]) -> None:
    for path, days in (("tls/ca.pem", 3650), ("tls/nats.pem", 825), ("tls/nbd-client/client-cert.pem", 825)):
        found = certificate(files, path)
        assert found.not_valid_before_utc <= NOW - timedelta(minutes=5), "a clock that is slow"
        assert found.not_valid_after_utc == NOW + timedelta(days=days)


@pytest.mark.parametrize(
    ("path", "purpose"),
    [
        ("tls/nats.pem", "sslserver"),
        ("tls/nbd-h1.pem", "sslserver"),
        ("tls/nbd-client/client-cert.pem", "sslclient"),
    ],
)
def test_openssl_accepts_a_certificate_for_its_purpose_and_no_other(
    files: dict[str, File], path: str, purpose: str, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(files["tls/ca.pem"].content)
    (tmp_path / "c.pem").write_bytes(files[path].content)
    for asked in ("sslserver", "sslclient"):
        at = str(int((NOW + timedelta(days=1)).timestamp()))
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-attime", at, "-purpose", asked, "-CAfile", "ca.pem", "c.pem"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) is (asked == purpose), done.stdout + done.stderr


def test_a_key_fits_its_certificate(files: dict[str, File], tmp_path: Path) -> None:
    for pair in (("tls/nats.pem", "tls/nats-key.pem"), ("tls/nbd-h1.pem", "tls/nbd-h1-key.pem")):
        for path in pair:
            (tmp_path / Path(path).name).write_bytes(files[path].content)
        made, key = (tmp_path / Path(path).name for path in pair)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made, key)


@pytest.mark.parametrize("text", ["", "a b", "a..b", "-a", "a/b", "x" * 64, "ö", "a\n", "*.example"])
def test_what_is_neither_a_name_nor_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is neither"):
        general_name(text)


def test_an_address_is_one() -> None:
    assert general_name("[::1]") == x509.IPAddress(ipaddress.ip_address("::1"))


# ------------------------------------------------------------------ all or nothing


def contents(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def test_modes_are_right_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(tmp_path / "etc", files_of(PLAN, NOW))
    finally:
        os.umask(before)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "etc").rglob("*")}
    assert modes["secrets"] == 0o700
    assert (modes["tls"], modes["services"], modes["operator.toml"], modes["ca.pem"]) == (
        0o755,
        0o755,
        0o644,
        0o644,
    )
    assert (modes["ca-key.pem"], modes["operator.nk"], modes["client-key.pem"]) == (0o600, 0o600, 0o600)
    assert contents(tmp_path)[0] == "etc"
    assert [each.name for each in tmp_path.iterdir()] == ["etc"]


def test_an_empty_folder_is_filled_and_stays_the_one_that_it_was(tmp_path: Path) -> None:
    """A shell may stand in it, or a file system be mounted there."""
    folder = tmp_path / "etc"
    folder.mkdir()
    folder.chmod(0o751)
    before = folder.stat()
    write(folder, files_of(PLAN, NOW))
    after = folder.stat()
    assert (after.st_ino, after.st_mode, after.st_uid) == (before.st_ino, before.st_mode, before.st_uid)
    assert {each.name for each in folder.iterdir()} == {
        "nats", "services", "hosts", "operator.toml", "secrets", "tls",
    }  # fmt: skip
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700


def test_a_folder_in_which_others_may_exchange_files_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, mode in (("open", 0o777), ("own", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
        assert run(["init", str(tmp_path / name)]) == 0
        assert ("mode 0777: others may exchange" in capsys.readouterr().out) is (name == "open")


@pytest.mark.parametrize("what", ["a file in it", "a file", "a link"])
def test_nothing_is_overwritten(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "etc"
    if what == "a file in it":
        folder.mkdir()
        (folder / "mine").write_text("mine")
    elif what == "a file":
        folder.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path)
    assert run(["init", str(folder)]) == 1
    assert capsys.readouterr().err.startswith("not-empty: ")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("number", [0, 1, 5, 15])
def test_nothing_half_done_stays_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "there").mkdir()
    writes = iter(range(100))
    real = new_folder._write

    def full(*arguments: object) -> None:
        if next(writes) == number:
            raise OSError(28, "No space left on device")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(new_folder, "_write", full)
    for place in (tmp_path / "etc", tmp_path / "there"):
        writes = iter(range(100))
        with pytest.raises(ConsoleError) as caught:
            write(place, files_of(PLAN, NOW))
        assert "No space left on device; nothing was written" in caught.value.message
        assert contents(tmp_path) == ["there"]


@pytest.mark.parametrize("ends", [OSError(30, "Read-only file system"), KeyboardInterrupt()])
def test_nothing_half_done_stays_in_a_folder_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: BaseException
) -> None:
    """The fourth of six things fails to take its place: the three before leave theirs."""
    renames = iter(range(100))
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if next(renames) == 3:
            raise ends
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises((ConsoleError, KeyboardInterrupt)):
        write(tmp_path, files_of(PLAN, NOW))
    assert contents(tmp_path) == []


def test_nothing_half_done_stays_when_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_made: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(new_folder, "_open", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "etc", files_of(PLAN, NOW))
    assert contents(tmp_path) == []


KILLED = """
import os, signal, sys
from services.console import new_folder
from services.console.application import run

new_folder._open = lambda made: os.kill(os.getpid(), {signal})
run(["init", sys.argv[1]])
"""


@pytest.mark.parametrize("is_there", [True, False])
def test_what_a_killed_one_has_left_is_removed_by_the_next(tmp_path: Path, *, is_there: bool) -> None:
    """Cause: keys of nobody's installation stayed in a hidden folder, and in a folder that was there they were in the way."""
    place = tmp_path / "etc"
    if is_there:
        place.mkdir()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(signal="signal.SIGKILL"), str(place)], check=False, timeout=60
    )
    assert killed.returncode == -9
    (left,) = (place if is_there else tmp_path).glob(".etc.*.new")
    assert (left / "secrets/operator.nk").exists()
    assert run(["init", str(place)]) == 0
    assert not left.exists()
    assert (place / "secrets/operator.nk").exists()


def test_what_another_one_is_writing_is_left_to_it(tmp_path: Path) -> None:
    place = tmp_path / "etc"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED.format(signal="signal.SIGSTOP"), str(place)]
    ) as stopped:
        try:
            os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
            (being_written,) = tmp_path.glob(".etc.*.new")
            assert run(["init", str(place)]) == 0
            assert being_written.exists()
        finally:
            stopped.kill()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConsoleError) as caught:
        write(tmp_path / "no/etc", files_of(PLAN, NOW))
    assert caught.value.code == "not-written"
    assert contents(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--host", "Not A Name"), "--host: 'Not A Name' cannot name a host"),
        (("--host", "a", "--host", "a"), "one name is given twice"),
        (("--host", "a=b c"), "--host: 'b c' is neither"),
        (("--nats-host", "x\ny"), "--nats-host: 'x\\ny' is neither"),
        (("--nats-monitor", "8222"), "--nats-monitor: '8222' is no ADDRESS:PORT"),
        (("--installed-at", "etc"), "--installed-at: 'etc' is no absolute path"),
        (("--nats-port", "0"), "--nats-port"),
        (("--allow", ""), "--allow: '' names no device"),
        (("--nats-store", ""), "--nats-store: '' is no absolute path"),
        (("--installed-at", ""), "--installed-at: '' is no absolute path"),
        (("--state-dir", ""), "--state-dir: '' is no absolute path"),
    ],
)
def test_an_option_that_cannot_be_meant_is_told(
    tmp_path: Path, arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", str(tmp_path / "etc"), *arguments]) == 2
    assert why in capsys.readouterr().err
    assert contents(tmp_path) == []


def test_a_folder_without_a_name_is_not_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", ""]) == 2
    assert "DIR: '' names no folder" in capsys.readouterr().err
    assert contents(tmp_path) == []


@pytest.mark.parametrize(("machine", "is_told"), [("DB-01.example", True), ("db-01", False)])
def test_a_machine_whose_name_is_none_of_a_host_is_told(
    machine: str,
    is_told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: machine)
    assert run(["init", str(tmp_path / "etc")]) == 0
    told = "This machine is called DB-01, and its host db-01" in capsys.readouterr().out
    assert told is is_told
    assert (tmp_path / "etc/hosts/db-01.toml").is_file()


def test_what_is_allowed_and_not_there_yet_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = tmp_path / "later"
    assert run(["init", str(tmp_path / "etc"), "--allow", str(later), "--host", "h1"]) == 0
    assert f"--allow {later}/ would let that in" in capsys.readouterr().out
    host = tomllib.loads((tmp_path / "etc/hosts/h1.toml").read_text())["host"]
    assert host["allowed_devices"] == [str(later)]


def test_the_commands_that_come_next_are_told_in_their_order() -> None:
    told = next_commands(PLAN)
    assert told[0] == "nats-server --config /etc/cutover/nats/nats-server.conf"
    assert told[1].startswith("python -P -m shared.bus.bootstrap ")
    assert told[5:7] == [
        "python -P -m services.write_cloning --config /etc/cutover/hosts/h1.toml",
        "python -P -m services.write_cloning --config /etc/cutover/hosts/h2.toml",
    ]
    assert told[7] == "python -P -m services.monitoring --config /etc/cutover/services/monitoring.toml"
    assert told[8] == "CUTOVER_CONFIG=/etc/cutover/operator.toml cutover list"


def test_no_other_command_waits_for_what_certificates_are_made_with() -> None:
    loaded = "import sys, services.console.application; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
