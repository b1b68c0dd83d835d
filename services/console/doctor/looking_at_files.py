"""Looks at the files that the configuration names. What stands in a key is not even read."""

import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from services.console.doctor.facts import FileLook
from services.console.doctor.of_files import NOT_BY_THIS_USER
from shared.config.model import Config
from shared.tls.files import CertificateError, tls_files

_DAY_S = 86400
SECRETS = {  # by key of the configuration: a secret, or certificates
    "nats.nkey_seed_file": True,
    "nats.tls_ca_file": False,
    "nbd.tls_certificate_file": False,
    "nbd.tls_key_file": True,
    "nbd.tls_client_ca_file": False,
    "monitoring.operator_nkey_seed_file": True,
}


def look_at_files(config: Config, now: datetime) -> tuple[FileLook, ...]:
    """Each that is named. `now` says how long certificates are good for."""
    return tuple(_look(key, path, now) for key, path in _named(config))


def look_at_tls(config: Config, now: datetime) -> tuple[str, ...] | None:
    """What a host finds wrong when it starts with these files; None where it does no TLS."""
    files = tls_files(config.nbd)
    if files is None:
        return None
    from shared.tls.certificates import server_context  # noqa: PLC0415 - as below

    try:
        server_context(files, now)
    except CertificateError as error:
        return error.mistakes
    return ()


def _named(config: Config) -> Iterator[tuple[str, Path]]:
    for key in SECRETS:
        section, _, name = key.partition(".")
        path = getattr(getattr(config, section), name)
        if path is not None:
            yield key, Path(path)


def _look(key: str, path: Path, now: datetime) -> FileLook:
    is_secret = SECRETS[key]
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return FileLook(
            key=key, path=str(path), is_secret=is_secret, trouble=f"cannot be read: {error.strerror}"
        )
    if not os.access(path, os.R_OK):
        return FileLook(key=key, path=str(path), is_secret=is_secret, trouble=NOT_BY_THIS_USER)
    if is_secret:
        return FileLook(key=key, path=str(path), is_secret=True, mode=mode)
    from cryptography import x509  # noqa: PLC0415 # loading it takes longer than most commands run

    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return FileLook(key=key, path=str(path), trouble="holds no certificate")
    left_s = min((each.not_valid_after_utc - now).total_seconds() for each in certificates)
    return FileLook(key=key, path=str(path), mode=mode, expires_in_days=left_s / _DAY_S)
