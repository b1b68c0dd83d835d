"""Who may give commands: whoever has read the access token, which is in a file that only the service's user can read.

The page takes the token once and gets a session for it: a cookie that scripts cannot read and that other sites cannot send, and a
second secret, against forged requests, that every command has to carry beside it. Sessions live in memory, for some hours.
"""

import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.migration.refusals import Code, Refusal

SESSIONS_MAX = 64  # the oldest gives way
SESSION_S = 12 * 3600.0
TOKEN_BYTES_MAX = 1024
_SECRET_BYTES = 32


class ForbiddenError(Exception):
    """The browser may not do that; its text is a sentence for whoever sits before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who has shown the token."""

    cookie: str
    csrf_token: str
    ends: float  # by the loop's clock


class Access:
    """The token and the sessions."""

    def __init__(self, token: str, clock: Callable[[], float]) -> None:
        """`clock` measures durations."""
        self._token = token
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def log_in(self, token: str) -> Session | None:
        """A session for whoever has the token; None for anyone else."""
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        session = Session(
            cookie=secrets.token_urlsafe(_SECRET_BYTES),
            csrf_token=secrets.token_urlsafe(_SECRET_BYTES),
            ends=self._clock() + SESSION_S,
        )
        self._sessions[session.cookie] = session
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return session

    def log_out(self, cookie: str) -> None:
        """End a session."""
        self._sessions.pop(cookie, None)

    def session(self, cookie: str) -> Session | None:
        """The session that a cookie belongs to, while it lasts."""
        session = self._sessions.get(cookie)
        if session is None or session.ends <= self._clock():
            self._sessions.pop(cookie, None)
            return None
        return session

    def may_command(self, cookie: str, csrf_token: str) -> bool:
        """Whether a command with this cookie was sent by our own page."""
        session = self.session(cookie)
        return session is not None and hmac.compare_digest(csrf_token.encode(), session.csrf_token.encode())


@contextmanager
def kept_token(file: Path | None) -> Iterator[tuple[str, Path]]:
    """The access token and the file that it is in, while the context is open.

    It is the one that is in the file, or a new one, which only we can read. Where no file is named, it has one for as long.

    Raises:
        Refusal: (`bad-request`) the file cannot be used; says why.
    """
    if file is not None:
        yield _token_in(file), file
        return
    with TemporaryDirectory(prefix="cutover-monitoring-") as folder:
        file = Path(folder) / "access-token"
        yield _token_in(file), file


def _token_in(file: Path) -> str:
    try:
        if not file.exists():
            _write(file, secrets.token_urlsafe(_SECRET_BYTES))
        with file.open() as opened:
            if os.fstat(opened.fileno()).st_mode & 0o077:
                raise Refusal(
                    Code.BAD_REQUEST,
                    f"monitoring.access_token_file: others may read {file}: `chmod 600` it, or remove it to have a new one made.",
                )
            token = opened.read(TOKEN_BYTES_MAX).strip()
    except OSError as error:
        raise Refusal(Code.BAD_REQUEST, f"monitoring.access_token_file: {file}: {error.strerror}.") from error
    if len(token) < _SECRET_BYTES:
        raise Refusal(
            Code.BAD_REQUEST,
            f"monitoring.access_token_file: {file} has fewer than {_SECRET_BYTES} characters: remove it, and a new one is made.",
        )
    return token


def _write(file: Path, token: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(token + "\n")
