"""`cutover init` on an installation that is there: another host, another key, renewed certificates; all of it, or nothing."""

import json
import re
import shutil
import stat
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from services.console import replacing
from services.console.application import run
from services.console.certificates import authority_of
from services.console.installation import HostPlan, Plan, files_of
from services.console.new_folder import File, write
from services.console.server_file import with_key
from shared.bus.nkeys import key_pair

LONG_AGO = datetime.now(UTC) - timedelta(days=800)
PLAN = Plan(
    installed_at=PurePosixPath("/etc/cutover"),
    hosts=(HostPlan(name="h1", addresses=("storage.example", "10.0.0.7")), HostPlan(name="h2")),
    nats_hosts=("nats.example",),
    state_dir=PurePosixPath("/var/lib/cutover"),
    allow=("/srv/*",),
)
ADDED = {"secrets/write_cloning-h3.nk", "hosts/h3.toml", "tls/nbd-h3.pem", "tls/nbd-h3-key.pem"}
SERVER = "nats/nats-server.conf"
CERTIFICATES = ("tls/nats.pem", "tls/nbd-h1.pem", "tls/nbd-h2.pem", "tls/nbd-client/client-cert.pem")


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """An installation that is 800 days old."""
    write(tmp_path / "etc", files_of(PLAN, LONG_AGO))
    return tmp_path / "etc"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def changes(before: dict[str, bytes], etc: Path) -> set[str]:
    after = contents(etc)
    assert before.keys() <= after.keys()
    return {path for path, content in after.items() if before.get(path) != content}


def certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def names(file: Path) -> set[str]:
    found = certificate(file).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(each.value) for each in found}


# ------------------------------------------------------------------ a host more


def test_a_host_that_is_added_has_all_that_one_has_that_was_there_from_the_beginning(
    etc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(etc)
    assert run(["init", str(etc), "--add-host", "h3=store.example,10.0.0.9", "--allow", "/dev/vg3/*"]) == 0
    assert changes(before, etc) == ADDED | {SERVER}
    h1, h3 = (tomllib.loads((etc / f"hosts/{name}.toml").read_text()) for name in ("h1", "h3"))
    assert h3["host"] == {
        "name": "h3",
        "state_dir": "/var/lib/cutover/h3",
        "allowed_devices": ["/dev/vg3/*"],
    }
    assert h3["nats"] == {
        **h1["nats"],
        "nkey_seed_file": "/etc/cutover/secrets/write_cloning-h3.nk",
        "inbox_prefix": "_INBOX_write_cloning.h3",
    }
    assert {key: value.replace("h3", "h1") for key, value in h3["nbd"].items()} == h1["nbd"]
    for secret in ("secrets/write_cloning-h3.nk", "tls/nbd-h3-key.pem"):
        assert stat.S_IMODE((etc / secret).stat().st_mode) == 0o600
    certificate(etc / "tls/nbd-h3.pem").verify_directly_issued_by(certificate(etc / "tls/ca.pem"))
    assert names(etc / "tls/nbd-h3.pem") >= {"h3", "store.example", "10.0.0.9", "localhost"}
    said = capsys.readouterr().out
    assert "have the NATS server read its file again" in said
    assert all(path in said for path in ADDED)
    assert "under systemd `chown cutover /etc/cutover/tls/nbd-h3-key.pem` there" in said


def test_the_server_knows_the_added_host_as_if_it_had_been_there_from_the_beginning(etc: Path) -> None:
    """The file has what is written for three hosts: nobody else's permissions change."""
    assert run(["init", str(etc), "--add-host", "h3"]) == 0
    whole = files_of(replace(PLAN, hosts=(*PLAN.hosts, HostPlan(name="h3"))), LONG_AGO)
    users, wanted = map(_users, ((etc / SERVER).read_text(), whole[PurePosixPath(SERVER)].content.decode()))
    assert users == wanted
    key = key_pair((etc / "secrets/write_cloning-h3.nk").read_text().strip()).public_key
    assert (
        f"# write_cloning-h3: the data path of host h3\n      {{ nkey: {key}\n" in (etc / SERVER).read_text()
    )


def _users(server: str) -> list[str]:
    """Each with its permissions, whatever its key and its place."""
    listed = server[server.index("    users: [\n") : server.rindex("\n    ]\n")]
    return sorted(re.sub("nkey: U[A-Z2-7]+", "nkey: …", each) for each in listed.split("\n      # ")[1:])


@pytest.mark.parametrize("path", sorted(ADDED))
def test_no_file_that_is_there_is_overwritten(
    etc: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (etc / path).write_text("somebody's")
    before = contents(etc)
    assert run(["init", str(etc), "--add-host", "h3"]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert contents(etc) == before


def test_without_the_key_of_the_authority_it_is_said_what_to_bring(
    etc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = shutil.move(etc / "tls/ca-key.pem", tmp_path / "kept.pem")
    before = contents(etc)
    for wanted in (["--add-host", "h3"], ["--renew"]):
        assert run(["init", str(etc), *wanted]) == 1
        assert "--ca-key" in capsys.readouterr().err
        assert contents(etc) == before
    (tmp_path / "other.pem").write_bytes((etc / "tls/nats-key.pem").read_bytes())
    assert run(["init", str(etc), "--renew", "--ca-key", str(tmp_path / "other.pem")]) == 1
    assert "it is the key of another authority" in capsys.readouterr().err
    assert contents(etc) == before
    assert run(["init", str(etc), "--add-host", "h3", "--ca-key", str(kept)]) == 0
    assert changes(before, etc) == ADDED | {SERVER}


def test_a_server_file_that_is_not_as_it_was_written_is_left_alone(
    etc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (etc / SERVER).write_text("port: 4222\n")
    before = contents(etc)
    for wanted in (["--add-host", "h3"], ["--new-key", "monitor"]):
        assert run(["init", str(etc), *wanted]) == 1
        assert "is not as `cutover init` wrote it" in capsys.readouterr().err
        assert contents(etc) == before


# ------------------------------------------------------------------ another key


def test_a_new_key_is_the_server_s_and_the_role_s_and_nobody_else_s(etc: Path) -> None:
    path = "secrets/write_cloning-h1.nk"
    before, old = contents(etc), key_pair((etc / path).read_text().strip()).public_key
    inode = (etc / path).stat().st_ino
    assert run(["init", str(etc), "--new-key", "write_cloning-h1"]) == 0
    assert changes(before, etc) == {path, SERVER}
    new = key_pair((etc / path).read_text().strip()).public_key
    assert (etc / SERVER).read_text() == before[SERVER].decode().replace(old, new)
    # The very file: a container has it mounted.
    assert ((etc / path).stat().st_ino, stat.S_IMODE((etc / path).stat().st_mode)) == (inode, 0o600)


def test_a_seed_that_is_lost_is_made_anew(etc: Path) -> None:
    (etc / "secrets/monitor.nk").unlink()
    assert run(["init", str(etc), "--new-key", "monitor"]) == 0
    key = key_pair((etc / "secrets/monitor.nk").read_text().strip()).public_key
    assert key in (etc / SERVER).read_text()
    assert stat.S_IMODE((etc / "secrets/monitor.nk").stat().st_mode) == 0o600


# ------------------------------------------------------------------ certificates


def test_renewed_certificates_are_for_the_same_names_and_keys_by_the_same_authority(etc: Path) -> None:
    before = contents(etc)
    old = {path: certificate(etc / path) for path in CERTIFICATES}
    assert run(["init", str(etc), "--renew"]) == 0
    assert changes(before, etc) == set(CERTIFICATES)
    for path, was in old.items():
        now = certificate(etc / path)
        now.verify_directly_issued_by(certificate(etc / "tls/ca.pem"))
        assert now.not_valid_after_utc > datetime.now(UTC) + timedelta(days=800)
        assert now.serial_number != was.serial_number
        assert (now.subject, now.public_key()) == (was.subject, was.public_key())
        kept = (x509.ExtendedKeyUsage, x509.KeyUsage, x509.BasicConstraints, x509.SubjectAlternativeName)
        for extension in kept[: 3 if "client" in path else 4]:
            assert (
                now.extensions.get_extension_for_class(extension).value
                == was.extensions.get_extension_for_class(extension).value
            )


@pytest.mark.parametrize("lost", ["tls/nbd-h1.pem", "tls/nbd-h1-key.pem", "tls/nats-key.pem"])
def test_a_pair_of_which_one_is_lost_is_made_anew(
    etc: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (etc / lost).unlink()
    assert run(["init", str(etc), "--renew"]) == 0
    said, who = capsys.readouterr().out, "cutover-nats" if "nats" in lost else "cutover"
    given = (
        f"under systemd `chown {who} /etc/cutover/{lost.removesuffix('.pem').removesuffix('-key')}-key.pem`"
    )
    # What is made anew is root's; where only the certificate is, so is not the key.
    assert (given in said) is lost.endswith("-key.pem")
    name = lost.removesuffix(".pem").removesuffix("-key")
    made = certificate(etc / f"{name}.pem")
    authority_of((etc / f"{name}.pem").read_bytes(), (etc / f"{name}-key.pem").read_bytes())  # they fit
    made.verify_directly_issued_by(certificate(etc / "tls/ca.pem"))
    assert stat.S_IMODE((etc / f"{name}-key.pem").stat().st_mode) == 0o600
    assert ("nats.example" if "nats" in name else "h1") in names(etc / f"{name}.pem")


# ------------------------------------------------------------------ another authority


@pytest.fixture
def both(etc: Path, tmp_path: Path) -> Path:
    """The installation of another authority, which is accepted in the old one besides its own."""
    write(tmp_path / "new", files_of(PLAN, datetime.now(UTC)))
    with (etc / "tls/ca.pem").open("ab") as accepted:
        accepted.write((tmp_path / "new/tls/ca.pem").read_bytes())
    return tmp_path / "new"


def test_two_authorities_have_no_subject_in_common(etc: Path, both: Path) -> None:
    subjects = [certificate(each / "tls/ca.pem").subject.rfc4514_string() for each in (etc, both)]
    assert subjects[0] != subjects[1]
    assert all("CN=Cutover's authority " in each for each in subjects)
    assert certificate(both / "tls/nats.pem").issuer == certificate(both / "tls/ca.pem").subject


@pytest.mark.parametrize("wanted", [["--add-host", "h3"], ["--renew"]])
def test_none_of_several_authorities_signs_before_it_is_named(
    etc: Path, both: Path, wanted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The key in the folder goes on being the old one's until somebody replaces it.

    Cause: whichever authority the key in the folder is of has signed, without a word. Failing: certificates of the old one, which
    nobody accepts any more when it is taken out. Passing: nothing is written until the key is named, and it is said who signed.
    """
    before = contents(etc)
    old, new = (certificate(each / "tls/ca.pem").subject.rfc4514_string() for each in (etc, both))
    assert run(["init", str(etc), *wanted]) == 1
    refused = capsys.readouterr().err
    assert refused.startswith("no-authority: ")
    assert old in refused
    assert new in refused
    assert "--ca-key" in refused
    assert contents(etc) == before

    assert run(["init", str(etc), *wanted, "--ca-key", str(both / "tls/ca-key.pem")]) == 0
    until = certificate(both / "tls/ca.pem").not_valid_after_utc
    assert f"Signed by {new}, which is good until {until:%Y-%m-%d}" in capsys.readouterr().out
    changed = "tls/nbd-h3.pem" if "h3" in wanted else "tls/nats.pem"
    certificate(etc / changed).verify_directly_issued_by(certificate(both / "tls/ca.pem"))


def test_who_signed_is_told_to_programs_too(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", str(etc), "--renew", "--json"]) == 0
    signs = certificate(etc / "tls/ca.pem")
    assert json.loads(capsys.readouterr().out)["signed_by"] == {
        "subject": signs.subject.rfc4514_string(),
        "not_after": f"{signs.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
    }


def test_authorities_that_were_called_alike_are_told_from_each_other(
    etc: Path, both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that an earlier version made have one subject."""
    alike = [called_as_of_old(LONG_AGO), called_as_of_old(datetime.now(UTC))]
    (etc / "tls/ca.pem").write_bytes(b"".join(alike))
    assert run(["init", str(etc), "--renew"]) == 1
    told = re.findall(r"CN=Cutover's authority,O=Cutover \([^)]*\)", capsys.readouterr().err)
    assert len(set(told)) == 2


def called_as_of_old(now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string("CN=Cutover's authority,O=Cutover")
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now)
    made = made.not_valid_after(now + timedelta(days=3650))
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_one_authority_whose_certificate_is_there_twice_is_one(etc: Path) -> None:
    (etc / "tls/ca.pem").write_bytes((etc / "tls/ca.pem").read_bytes() * 2)
    assert run(["init", str(etc), "--renew"]) == 0


# ------------------------------------------------------------------ all of it, or nothing


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("wanted", [["--add-host", "h3"], ["--renew"], ["--new-key", "monitor"]])
def test_nothing_half_done_stays_when_writing_fails(
    etc: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[str], number: int
) -> None:
    before, writes = contents(etc), iter(range(100))
    real = replacing._overwrite

    def full(path: Path, content: bytes) -> None:
        real(path, content)
        if next(writes) == number:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(replacing, "_overwrite", full)
    ended = run(["init", str(etc), *wanted])
    made = number if wanted[0] == "--renew" else {"--add-host": 0, "--new-key": 1}[wanted[0]]
    assert ended == (1 if number <= made else 0)
    assert (contents(etc) == before) is (ended == 1)


@pytest.mark.parametrize(
    "wanted", [["--add-host", "h3"], ["--new-key", "monitor"]], ids=lambda wanted: wanted[0]
)
def test_whoever_is_killed_has_not_changed_the_server_s_file_yet(
    etc: Path, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that has a key that nobody has yet turns away what runs, and that could not stop cleanly."""
    written: list[str] = []
    make, overwrite = replacing._make, replacing._overwrite

    def made(path: Path, file: File, there: list[Path]) -> None:
        written.append(str(path.relative_to(etc)))
        make(path, file, there)

    def overwritten(path: Path, content: bytes) -> None:
        written.append(str(path.relative_to(etc)))
        overwrite(path, content)

    monkeypatch.setattr(replacing, "_make", made)
    monkeypatch.setattr(replacing, "_overwrite", overwritten)
    assert run(["init", str(etc), *wanted]) == 0
    assert written.index(SERVER) == len(written) - 1 > 0


def test_what_cannot_be_put_back_is_named(
    etc: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = replacing._overwrite

    def full(path: Path, content: bytes) -> None:
        if path.name == "monitor.nk":
            real(path, content)
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(replacing, "_overwrite", full)
    assert run(["init", str(etc), "--new-key", "monitor"]) == 1
    told = capsys.readouterr().err
    assert f"{etc}/secrets/monitor.nk (No space left on device)" in told
    assert "Have no server read it" in told


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--add-host", "h3", "--renew"], "one at a time"),
        (["--renew", "--nats-port", "4223"], "--nats-port does not go with --renew"),
        (["--add-host", "h3", "--host", "h4"], "--host does not go with --add-host"),
        (["--new-key", "monitor", "--ca-key", "x"], "--ca-key does not go with --new-key"),
        (["--ca-key", "x"], "--ca-key goes with"),
        (["--add-host", "H3"], "--add-host: 'H3' cannot name a host"),
        (["--add-host", ""], "--add-host: '' cannot name a host"),
        (["--new-key", "write_cloning-h9"], "there is no role 'write_cloning-h9'"),
        (["--add-host", "h3", "--state-dir", "x"], "--state-dir: 'x' is no absolute path"),
    ],
)
def test_options_that_cannot_be_meant_are_told(
    etc: Path, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(etc)
    assert run(["init", str(etc), *arguments]) == 2
    assert why in capsys.readouterr().err
    assert contents(etc) == before


@pytest.mark.parametrize("wanted", [["--add-host", "h3"], ["--renew"], ["--new-key", "monitor"]])
def test_where_nothing_is_installed_nothing_is_made(
    tmp_path: Path, wanted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", str(tmp_path / "etc"), *wanted]) == 1
    assert "holds no installation" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_given_to_no_role_that_the_file_does_not_name() -> None:
    with pytest.raises(ValueError, match="there is no user below a comment"):
        with_key("# monitor: x\n{ nkey: no }\n", "monitor", "UA")
