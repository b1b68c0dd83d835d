"""Certificates for the parts of one installation, signed by an authority of its own. The package `cryptography` makes them.

What a certificate is for stands in it (the extended key usage), so that a client's is no good for a server, and a
server's none for a client, though one authority signs both.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=825)  # the longest that common clients take
_CLOCKS_DIFFER = timedelta(hours=1)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_DNS_NAME_LENGTH_MAX = 253
_COMMON_NAME_LENGTH_MAX = 64
_KEY_NAME_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """What signs, for one installation."""

    issued: Issued
    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def subject(self) -> str:
        """What its certificate calls it, which stands in all that it signs."""
        return self.certificate.subject.rfc4514_string()

    @property
    def not_after(self) -> datetime:
        """Until when what it has signed is accepted at the longest; in UTC."""
        return self.certificate.not_valid_after_utc

    def for_server(self, name: str, alternatives: Sequence[str], now: datetime) -> Issued:
        """For a server that is reached under any of these names and addresses."""
        names = x509.SubjectAlternativeName([general_name(each) for each in dict.fromkeys(alternatives)])
        return self._issue(name, ExtendedKeyUsageOID.SERVER_AUTH, names, now)

    def for_client(self, name: str, now: datetime) -> Issued:
        """For a client, which no name is checked of."""
        return self._issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, None, now)

    def renewed(self, old: x509.Certificate, now: datetime) -> bytes:
        """The same again, with the same key, for as long as a new one.

        Raises:
            ValueError: it is not said what it is for.
        """
        try:
            usage = old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            raise ValueError("it does not say what it is for") from None
        key = old.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("its key is of another kind")  # noqa: TRY004 - it is the file that is wrong
        return self._signed(old.subject, key, usage, _names_of(old), now).public_bytes(Encoding.PEM)

    def _issue(
        self,
        name: str,
        usage: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None,
        now: datetime,
    ) -> Issued:
        key = _new_key()
        signed = self._signed(_subject(name), key.public_key(), x509.ExtendedKeyUsage([usage]), names, now)
        return _issued(signed, key)

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        usage: x509.ExtendedKeyUsage,
        names: x509.SubjectAlternativeName | None,
        now: datetime,
    ) -> x509.Certificate:
        builder = (
            _begun(subject, key, now, LIFETIME)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def new_authority(name: str, now: datetime) -> Authority:
    """An authority that nobody knows yet. What it is called is told from others of that name by its key."""
    key = _new_key()
    subject = _subject(f"{name} {_key_name(key.public_key())}")
    certificate = (
        _begun(subject, key.public_key(), now, AUTHORITY_LIFETIME)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(_issued(certificate, key), certificate, key)


def authority_of(certificates: bytes, key: bytes) -> Authority:
    """The authority that is there: the one of these certificates that the key is of.

    Raises:
        ValueError: there are none, it is no key that signs here, or of another.
    """
    private = load_pem_private_key(key, None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise ValueError("it is no key of an elliptic curve")  # noqa: TRY004 - it is the file that is wrong
    for certificate in x509.load_pem_x509_certificates(certificates):
        if certificate.public_key() == private.public_key():
            return Authority(_issued(certificate, private), certificate, private)
    raise ValueError("it is the key of another authority")


def authorities_in(certificates: bytes) -> tuple[str, ...]:
    """Each authority that these certificates (PEM) are of, once, told from the others by its key and how long it is good.

    Raises:
        ValueError: there are none, or one cannot be read.
    """
    found: dict[str, x509.Certificate] = {}
    for each in x509.load_pem_x509_certificates(certificates):
        found.setdefault(_key_name(each.public_key()), each)
    return tuple(
        f"{each.subject.rfc4514_string()} (key {key}, good until {each.not_valid_after_utc:%Y-%m-%d})"
        for key, each in found.items()
    )


def general_name(text: str) -> x509.GeneralName:
    """A name or an address as a certificate has it.

    Raises:
        ValueError: it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    if len(text) > _DNS_NAME_LENGTH_MAX or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError(f"{text!r} is neither a host's name nor an address")
    return x509.DNSName(text)


def _names_of(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _key_name(key: CertificatePublicKeyTypes) -> str:
    """A few characters of the key's identifier."""
    return x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()[:_KEY_NAME_LENGTH]


def _begun(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Cutover"),
        x509.NameAttribute(NameOID.COMMON_NAME, name[:_COMMON_NAME_LENGTH_MAX]),
    ])  # fmt: skip


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
