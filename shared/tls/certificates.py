"""The files that TLS is done with, looked at before anything is served: what is wrong with them, and the context that they make.

Each mistake is told by the key that named the file, the file, and what is the matter. It must not know what is served.
"""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from shared.tls.files import CertificateError, TlsFiles

FILE_BYTES_MAX = 1 << 20


class _TooEarlyError(ValueError):
    """A certificate is not valid yet, by the clock of this machine."""


@dataclass(frozen=True, slots=True)
class _Mistake:
    """A clause for people, and what it is about."""

    clause: str
    is_too_early: bool = False


def server_context(files: TlsFiles, now: datetime) -> ssl.SSLContext:
    """What a server of these files does TLS with. Reads them: not for the loop.

    Raises:
        CertificateError: with all that is wrong with them.
    """
    mistakes = list(_mistakes(files, now))
    if mistakes:
        raise CertificateError(
            *(each.clause for each in mistakes), is_too_early=all(each.is_too_early for each in mistakes)
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # "TLS versions"
    # A resumed session would not have its certificate looked at again; and nothing is negotiated twice.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (
        OSError
    ) as error:  # also ssl.SSLError: they were looked at, but OpenSSL takes more exception than we do
        raise CertificateError(f"nbd.tls_certificate_file: OpenSSL refuses these files: {error}") from error
    return context


def _mistakes(files: TlsFiles, now: datetime) -> Iterator[_Mistake]:
    found: dict[str, bytes] = {}
    for key, file in files.each():
        try:
            found[key] = _read(file)
        except OSError as error:
            yield _Mistake(f"{key}: {file}: {error.strerror}")
        except ValueError as error:
            yield _Mistake(f"{key}: {file}: {error}")
    judges: dict[str, Callable[[bytes, datetime], None]] = {
        "nbd.tls_certificate_file": _judge_certificate,
        "nbd.tls_key_file": _judge_key,
        "nbd.tls_client_ca_file": _judge_ca,
    }
    for key, file in files.each():
        if key in found:
            try:
                judges[key](found[key], now)
            except ValueError as error:
                yield _Mistake(f"{key}: {file}: {error}", isinstance(error, _TooEarlyError))
            except Exception as error:  # noqa: BLE001 - what `cryptography` finds wrong has no class in common
                yield _Mistake(f"{key}: {file}: it is of a kind that cannot be used: {error!r}")
    certificate, private_key = found.get("nbd.tls_certificate_file"), found.get("nbd.tls_key_file")
    if certificate is not None and private_key is not None and not _belong_together(certificate, private_key):
        yield _Mistake(
            f"nbd.tls_key_file: {files.key}: it is not the key of the certificate in {files.certificate}"
        )


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"it is larger than {FILE_BYTES_MAX} bytes")
    return content


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError("it has no certificate, or one that cannot be read (PEM is wanted)") from None


def _judge_certificate(pem: bytes, now: datetime) -> None:
    certificate = _certificates(pem)[0]
    _judge_dates(certificate, now)
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if x509.oid.ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise ValueError("its certificate is not meant for a server (extended key usage)")


def _judge_key(pem: bytes, now: datetime) -> None:
    del now
    _private_key(pem)


def _judge_ca(pem: bytes, now: datetime) -> None:
    """One that has expired may stand beside its successor."""
    certificates = _certificates(pem)
    for certificate in certificates:
        if not _is_ca(certificate):
            raise ValueError(f"{_name(certificate)} is not the certificate of a CA")
    newest = max(certificates, key=lambda each: each.not_valid_after_utc)
    _judge_dates(newest, now)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _judge_dates(certificate: x509.Certificate, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise ValueError(
            f"{_name(certificate)} has expired, at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        )
    if now < certificate.not_valid_before_utc:
        raise _TooEarlyError(
            f"{_name(certificate)} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        )


def _name(certificate: x509.Certificate) -> str:
    return f"the certificate of {certificate.subject.rfc4514_string() or 'nobody'}"


def _private_key(pem: bytes) -> PublicKeyTypes:
    """The public half of it."""
    try:
        return load_pem_private_key(pem, None).public_key()
    except TypeError:
        raise ValueError("the key is encrypted, and nobody is there to type a passphrase") from None
    except ValueError:
        raise ValueError("it has no private key, or one that cannot be read (PEM is wanted)") from None


def _belong_together(certificate: bytes, key: bytes) -> bool:
    """True also of what cannot be read, which is a mistake of its own; OpenSSL asks again."""
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        of_certificate, of_key = _certificates(certificate)[0].public_key(), _private_key(key)
    except Exception:  # noqa: BLE001 - as above
        return True
    return of_certificate.public_bytes(*form) == of_key.public_bytes(*form)
