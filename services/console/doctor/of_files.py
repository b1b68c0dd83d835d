"""Checks of the files that the configuration names: keys that only we may read, certificates that are still good."""

from collections.abc import Iterator

from services.console.doctor.facts import Facts, FileLook
from services.console.doctor.findings import Finding, failure, ok, warning

OTHERS_MAY = 0o077
EXPIRES_SOON_DAYS = 30
NOT_BY_THIS_USER = "cannot be read by this user"
_RENEW = "where the installation is kept, `cutover init DIR --renew`"
_AUTHORITIES = ("nats.tls_ca_file", "nbd.tls_client_ca_file")
_PAIR = ("nbd.tls_certificate_file", "nbd.tls_key_file")


def named_files(facts: Facts) -> Iterator[Finding]:
    """Whether each is there, is a secret where it is one, and has not expired."""
    for file in facts.files:
        yield _of(file)


def tls(facts: Facts) -> Iterator[Finding]:
    """Whether the host starts with its files for TLS: each may be in order, and they may not fit each other."""
    if facts.tls_mistakes is None:
        return
    told = tuple(f"{file.key}: " for file in facts.files if file.trouble)
    for mistake in facts.tls_mistakes:
        if not mistake.startswith(told):
            yield failure(
                f"the host will not start: {mistake}",
                f"{_RENEW}: it makes those anew that do not fit, and leaves the authority and all others as they are",
            )
    if not facts.tls_mistakes:
        yield ok("volumes can be served with TLS")


def _of(file: FileLook) -> Finding:
    said = f"{file.key}: {file.path}"
    if file.trouble:
        return failure(f"{said} {file.trouble}", _remedy(file))
    if file.is_secret and file.mode & OTHERS_MAY:
        return warning(f"{said} is open to others (mode {file.mode:04o})", f"chmod 600 {file.path}")
    days = file.expires_in_days
    if days is not None and days <= 0:
        return failure(f"{said} has expired", _renewal(file))
    if days is not None and days < EXPIRES_SOON_DAYS:
        return warning(f"{said} expires in {days:.0f} days", _renewal(file))
    return ok(said if days is None else f"{said}, good for {days:.0f} days")


def _remedy(file: FileLook) -> str:
    if file.trouble == NOT_BY_THIS_USER:
        return "run this as root, or as the user of the service; if that is done, give the file to the user"
    if file.key in _AUTHORITIES:
        return "copy tls/ca.pem from the folder that `cutover init` made"
    if file.key in _PAIR:
        return f"bring it from the folder that `cutover init` made; if it is lost there, {_RENEW}"
    return (
        "bring it from the folder that `cutover init` made; if it is lost there, `cutover init DIR --new-key ROLE` makes a new "
        "one (docs/SECURITY.md)"
    )


def _renewal(file: FileLook) -> str:
    if file.key in _AUTHORITIES:
        return "make a new authority, and let both be accepted for a while (docs/SECURITY.md)"
    return f"{_RENEW}, and bring the file here; the host uses it by itself"
