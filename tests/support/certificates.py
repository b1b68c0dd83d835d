"""Certificates for tests: a CA, a server, and clients of every kind, each client's in a folder as libnbd and qemu want them."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey
Dates = tuple[dt.datetime, dt.datetime]
VALID: Dates = NOW - DAY, NOW + 30 * DAY
EXPIRED: Dates = NOW - 30 * DAY, NOW - DAY
NOT_YET: Dates = NOW + DAY, NOW + 30 * DAY


@dataclass(frozen=True)
class Authority:
    """Whoever signs."""

    key: Key
    certificate: x509.Certificate

    @classmethod
    def make(cls, name: str, dates: Dates = VALID) -> "Authority":
        key = _make_key()
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        usage = _key_usage(signs=True)
        certificate = (
            _begin(name, key, dates)
            .issuer_name(_name(name))
            .add_extension(constraints, critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    def issue(
        self, name: str, dates: Dates = VALID, *, is_server: bool = False
    ) -> tuple[x509.Certificate, Key]:
        key = _make_key()
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _begin(name, key, dates)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if is_server:
            names = [
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                x509.IPAddress(ipaddress.ip_address("::1")),
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()), key


class Pki:
    """Files in one folder. `clients` has a folder for each kind of client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.make("the CA")
        self.stranger = Authority.make("another CA")
        self.ca = write(folder / "ca.pem", self.authority.certificate)
        self.other_ca = write(folder / "other-ca.pem", self.stranger.certificate)
        certificate, key = self.authority.issue("localhost", is_server=True)
        self.certificate, self.key = (
            write(folder / "server.pem", certificate),
            write_key(folder / "server.key", key),
        )
        self.good = self._client("good", self.authority)
        self.expired = self._client("expired", self.authority, EXPIRED)
        self.wrong = self._client("wrong", self.stranger)
        self.none = self._client("none", None)
        self.distrustful = self._client("distrustful", self.authority, ca=self.stranger)

    def _client(
        self, name: str, issuer: Authority | None, dates: Dates = VALID, ca: Authority | None = None
    ) -> Path:
        folder = self.folder / name
        folder.mkdir()
        write(folder / "ca-cert.pem", (ca or self.authority).certificate)
        if issuer is not None:
            certificate, key = issuer.issue(f"client {name}", dates)
            write(folder / "client-cert.pem", certificate)
            write_key(folder / "client-key.pem", key)
        return folder


def write(path: Path, *certificates: x509.Certificate) -> Path:
    path.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in certificates))
    return path


def write_key(path: Path, key: Key) -> Path:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def _make_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begin(name: str, key: Key, dates: Dates) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        subject_name=_name(name),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=dates[0],
        not_valid_after=dates[1],
    )


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
