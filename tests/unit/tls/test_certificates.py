"""The files that TLS is done with: every mistake, told by its key, its file, and what is wrong."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from shared.tls.certificates import FILE_BYTES_MAX, server_context
from shared.tls.files import CertificateError, TlsFiles
from tests.support.certificates import EXPIRED, NOT_YET, NOW, VALID, Authority, Dates, Pki, write, write_key

CERTIFICATE, KEY, CA = "nbd.tls_certificate_file", "nbd.tls_key_file", "nbd.tls_client_ca_file"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(Path(tmp_path_factory.mktemp("pki")))


@pytest.fixture
def files(pki: Pki, tmp_path: Path) -> TlsFiles:
    """Copies of sound ones, to be spoilt."""
    found = TlsFiles(
        certificate=tmp_path / "server.pem", key=tmp_path / "server.key", client_ca=tmp_path / "ca.pem"
    )
    for copy, original in zip(
        (path for _, path in found.each()), (pki.certificate, pki.key, pki.ca), strict=True
    ):
        copy.write_bytes(original.read_bytes())
    return found


def mistakes(files: TlsFiles) -> list[str]:
    with pytest.raises(CertificateError) as caught:
        server_context(files, NOW)
    return str(caught.value).split("; ")


def test_sound_files_make_a_context_that_demands_a_clients_certificate(files: TlsFiles) -> None:
    context = server_context(files, NOW)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_TICKET


def test_without_a_client_ca_none_is_demanded(pki: Pki) -> None:
    context = server_context(TlsFiles(certificate=pki.certificate, key=pki.key), NOW)
    assert context.verify_mode is ssl.CERT_NONE


def _issue(files: TlsFiles, pki: Pki, dates: Dates = VALID, *, is_server: bool = False) -> None:
    certificate, key = pki.authority.issue("localhost", dates, is_server=is_server)
    write(files.certificate, certificate)
    write_key(files.key, key)


def _encrypt_key(files: TlsFiles, pki: Pki) -> None:
    certificate, key = pki.authority.issue("localhost", is_server=True)
    write(files.certificate, certificate)
    form = Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")
    files.key.write_bytes(key.private_bytes(*form))


def _replace_ca(files: TlsFiles, *authorities: Authority) -> None:
    assert files.client_ca is not None
    write(files.client_ca, *(each.certificate for each in authorities))


def _make_folder(files: TlsFiles, pki: Pki) -> None:
    files.key.unlink()
    files.key.mkdir()


def gone(which: str) -> "Spoil":
    return lambda files, pki: getattr(files, which).unlink()


def holds(which: str, content: bytes) -> "Spoil":
    return lambda files, pki: getattr(files, which).write_bytes(content)


def holds_what(which: str, other: str, length: int = FILE_BYTES_MAX) -> "Spoil":
    return lambda files, pki: getattr(files, which).write_bytes(getattr(files, other).read_bytes()[:length])


Spoil = Callable[[TlsFiles, Pki], object]
SPOILT: dict[str, tuple[Spoil, str, str]] = {
    "no certificate file": (gone("certificate"), CERTIFICATE, "No such file"),
    "no key file": (gone("key"), KEY, "No such file"),
    "no CA file": (gone("client_ca"), CA, "No such file"),
    "a folder": (_make_folder, KEY, "Is a directory"),
    "empty": (holds("certificate", b""), CERTIFICATE, "no certificate"),
    "no PEM": (holds("client_ca", b"\xff" * 99), CA, "no certificate"),
    "half of one": (holds_what("certificate", "certificate", 300), CERTIFICATE, "no certificate"),
    "too large": (holds("certificate", bytes(FILE_BYTES_MAX + 1)), CERTIFICATE, "larger than"),
    "no key": (holds_what("key", "certificate"), KEY, "no private key"),
    "encrypted": (_encrypt_key, KEY, "nobody is there to type a passphrase"),
    "another key": (lambda f, p: write_key(f.key, p.stranger.key), KEY, "not the key of the certificate in"),
    "expired": (lambda f, p: _issue(f, p, dates=EXPIRED, is_server=True), CERTIFICATE, "has expired, at"),
    "not yet": (lambda f, p: _issue(f, p, dates=NOT_YET, is_server=True), CERTIFICATE, "not valid before"),
    "a client's": (_issue, CERTIFICATE, "not meant for a server"),
    "an expired CA": (lambda f, p: _replace_ca(f, Authority.make("old", EXPIRED)), CA, "has expired, at"),
    "no CA": (holds_what("client_ca", "certificate"), CA, "not the certificate of a CA"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_wrong_is_told_by_key_and_file(files: TlsFiles, pki: Pki, what: str) -> None:
    spoil, key, why = SPOILT[what]
    spoil(files, pki)
    (mistake,) = mistakes(files)
    assert mistake.startswith(f"{key}: {dict(files.each())[key]}: ")
    assert why in mistake
    assert "hunter2" not in mistake


def test_all_mistakes_are_told_at_once(files: TlsFiles, pki: Pki) -> None:
    files.certificate.unlink()
    files.key.write_bytes(b"")
    _replace_ca(files, Authority.make("old", EXPIRED))
    assert [mistake.partition(": ")[0] for mistake in mistakes(files)] == [CERTIFICATE, KEY, CA]


def test_expired_ca_may_stand_beside_its_successor(files: TlsFiles, pki: Pki) -> None:
    """Or a host could not be restarted while certificates are being exchanged."""
    _replace_ca(files, Authority.make("old", EXPIRED), pki.authority)
    assert server_context(files, NOW).verify_mode is ssl.CERT_REQUIRED
