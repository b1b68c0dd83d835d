"""Checks of the files that the configuration names: keys that only we may read, certificates that are still good."""

from collections.abc import Iterator

from services.console.doctor.facts import Facts, FileLook
from services.console.doctor.findings import Finding, failure, ok, warning

OTHERS_MAY = 0o077
EXPIRES_SOON_DAYS = 30


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
                f"the host will not start: {mistake}", "mend it; `cutover init` writes files that fit"
            )
    if not facts.tls_mistakes:
        yield ok("volumes can be served with TLS")


def _of(file: FileLook) -> Finding:
    said = f"{file.key}: {file.path}"
    if file.trouble:
        return failure(f"{said} {file.trouble}", f"mend {file.key}; `cutover init` writes all of them anew")
    if file.is_secret and file.mode & OTHERS_MAY:
        return warning(f"{said} is open to others (mode {file.mode:04o})", f"chmod 600 {file.path}")
    days = file.expires_in_days
    if days is not None and days <= 0:
        return failure(f"{said} has expired", "renew it, and restart what uses it")
    if days is not None and days < EXPIRES_SOON_DAYS:
        return warning(f"{said} expires in {days:.0f} days", "renew it, and restart what uses it")
    return ok(said if days is None else f"{said}, good for {days:.0f} days")
