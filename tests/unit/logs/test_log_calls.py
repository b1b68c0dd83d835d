"""Every line of the log that is about a migration says of which: found in the code, so that no new one can forget it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}

# Lines that are about no migration; with the reason where it is not plain.
ABOUT_NO_MIGRATION = {
    "run %d of host %s begins",
    "host %s serves %s",
    "the stop was clean",
    "the stop was not clean: the error flag stays set",
    "the stop took longer than %g s; devices with requests out: %s",
    "no region maps are kept: %s: %s",
    "the file %r is passed over: no migration has such a name (%s)",
    "not admitted yet: %s",
    "waiting for NATS: %s",
    "this host can be asked by NATS only: %s",
    "device I/O is done by threads: %s",
    "%d devices are locked until the kernel has done their last requests: so is this process",
    "progress is not told: %s",
    "%s was removed by somebody else",
    # Only when nothing of it can matter any more.
    "%s: closing: %s",
    # A client that has not said yet what it wants, or cannot.
    "a client gave way in its handshake: %d others are in theirs",
    "%s: %s",
    "%s took too long over its handshake",
    "%s broke the protocol in its handshake: %s",
    "%s was lost during its handshake: %s",
    "%s was turned away by TLS: %s",
    "the files of before are still used for TLS: %s",
    "the files of before are still used for TLS",
    "TLS is done with the new %s from now on",
    "a client's certificate does not tell its name: %r",
    "no client can be accepted on %s: %s",
    "connected to NATS at %s",
    "commands are offered now",
    "the stop came before the admission: nothing was opened",
    "something cannot be told to browsers, and is left out: %s",  # nobody knows yet what it is about
    "%s",  # `cutover up`, of its services; monitoring, of the bus
    # Of monitoring: what cannot be read says nothing of a migration but its subject.
    "the page is at %s",
    "commands are offered to whoever logs in with the access token in %s",
    "somebody at %s has logged in, and may give commands",
    "a log-in from %s was turned away: that is not the access token",
    "log-ins turned away since: %d, the last from %s",
    "A message on %r is passed over: %s",
    "A record on %r is passed over: %s",
    "not everything was answered: %s",
    "the server's certificate is not looked at: %s",
}


def log_calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger's method in a file, with its text."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        logger = node.func.value
        if isinstance(logger, ast.Name) and logger.id in {"log", "_log"} and node.func.attr in LEVELS:
            text = node.args[0]
            yield str(text.value) if isinstance(text, ast.Constant) else "", node


def test_every_line_about_a_migration_says_of_which() -> None:
    silent = [
        f"{file.relative_to(ROOT)}:{call.lineno}: {text}"
        for file in sorted((ROOT / "services").rglob("*.py"))
        for text, call in log_calls(file)
        if not any(keyword.arg == "extra" for keyword in call.keywords) and text not in ABOUT_NO_MIGRATION
    ]
    assert not silent, "give them extra=about(…), or name them here"


def test_no_exception_is_outdated() -> None:
    texts = {text for file in (ROOT / "services").rglob("*.py") for text, _call in log_calls(file)}
    assert not ABOUT_NO_MIGRATION - texts
