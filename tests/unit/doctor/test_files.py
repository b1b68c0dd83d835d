"""The files that a configuration names, as they are found on a disk."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from services.console.doctor.facts import FileLook
from services.console.doctor.looking_at_files import SECRETS, look_at_files, look_at_tls
from shared.config.load import known_keys
from shared.config.model import Config, NatsConfig, NbdConfig
from tests.support.certificates import NOW as VALID_NOW
from tests.support.certificates import Pki, write_key

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def certificate(file: Path, *, days: int) -> Path:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    key = Ed25519PrivateKey.generate()
    made = x509.CertificateBuilder(
        name, name, key.public_key(), 1, NOW - timedelta(days=100), NOW + timedelta(days=days)
    ).sign(key, None)
    with file.open("ab") as opened:
        opened.write(made.public_bytes(Encoding.PEM))
    return file


def look(key: str, file: Path) -> FileLook:
    nats = replace(NatsConfig(), **{key: str(file)})  # type: ignore[arg-type]
    (found,) = look_at_files(Config(nats=nats), NOW)
    assert found.key == f"nats.{key}"
    return found


def test_a_configuration_that_names_none_has_none() -> None:
    assert look_at_files(Config(), NOW) == ()


def test_of_a_key_the_mode_counts_and_nothing_of_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "operator.nk"
    file.write_bytes(b"\xff")
    file.chmod(0o640)
    assert look("nkey_seed_file", file) == FileLook(
        key="nats.nkey_seed_file", path=str(file), is_secret=True, mode=0o640
    )


def test_of_certificates_the_one_that_expires_first_counts(tmp_path: Path) -> None:
    file = certificate(certificate(tmp_path / "ca.pem", days=400), days=3)
    found = look("tls_ca_file", file)
    assert (found.trouble, found.is_secret, found.expires_in_days) == ("", False, 3.0)
    expired = look("tls_ca_file", certificate(tmp_path / "old.pem", days=-2))
    assert expired.expires_in_days == -2.0


@pytest.mark.parametrize("key", ["nkey_seed_file", "tls_ca_file"])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, key: str) -> None:
    assert look(key, tmp_path / "nowhere").trouble == "cannot be read: No such file or directory"


def test_a_file_without_certificates_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("hello")
    assert look("tls_ca_file", file).trouble == "holds no certificate"


def tls_of(pki: Pki, certificate: Path, key: Path) -> tuple[str, ...] | None:
    config = NbdConfig(
        tls_certificate_file=str(certificate), tls_key_file=str(key), tls_client_ca_file=str(pki.ca)
    )
    return look_at_tls(Config(nbd=config), VALID_NOW)


def test_files_for_tls_are_judged_as_the_host_judges_them(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    assert look_at_tls(Config(), VALID_NOW) is None
    assert tls_of(pki, pki.certificate, pki.key) == ()
    other = tmp_path / "other.key"
    write_key(other, pki.stranger.key)
    (mistake,) = tls_of(pki, pki.certificate, other) or ("",)
    assert mistake.startswith(f"nbd.tls_key_file: {other}: it is not the key of the certificate in")
    (mistake,) = tls_of(pki, pki.good / "client-cert.pem", pki.good / "client-key.pem") or ("",)
    assert "is not meant for a server" in mistake


def test_every_file_that_can_be_named_is_looked_at() -> None:
    """A new key that names a file wants a line in `looking_at_files`."""
    written_by_its_service = {"monitoring.access_token_file"}
    assert {key for key in known_keys() if key.endswith("_file")} - written_by_its_service == set(SECRETS)
