"""Names of remote exports: `nbd://HOST[:PORT]/EXPORT` and `nbd+unix:///EXPORT?socket=PATH`.

Pure; the NBD project's `uri.md` says how they are written. A URI has one canonical text, which is what patterns are matched
against and what a record keeps as the export's token.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from services.write_cloning.devices.errors import UriNotSupportedError
from shared.nbd.constants import MAX_STRING_BYTES

DEFAULT_PORT = 10809
SOCKET_PATH_BYTES_MAX = 107  # `sun_path` without its NUL (unix(7))

_FORMS = "nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH"
_SCHEME = re.compile(r"nbds?(\+[a-z]+)?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteUri:
    """An export, and where its server listens: on a Unix socket, or else on a host's port."""

    export: str
    socket_path: str = ""
    host: str = ""
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        export = quote(self.export)
        if self.socket_path:
            return f"nbd+unix:///{export}?socket={quote(self.socket_path)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        return f"nbd://{host}{port}/{export}"


def is_remote(uri: str) -> bool:
    """Whether a remote export is meant, rightly written or not."""
    return _SCHEME.match(uri) is not None


def parse_remote(uri: str) -> RemoteUri:
    """Take a URI apart.

    Raises:
        UriNotSupportedError: it is not written as it must be, or asks for what this version has not.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        export = unquote(parts.path.removeprefix("/"), errors="strict")
    except ValueError as error:
        raise UriNotSupportedError(f"{uri} is no URI of a remote export ({error}); write {_FORMS}") from None
    if parts.scheme.startswith("nbds"):
        raise UriNotSupportedError(f"{uri} asks for TLS, which devices cannot do yet; write {_FORMS}")
    if parts.username is not None or parts.fragment or "\0" in export + uri:
        raise UriNotSupportedError(f"{uri} says more than where an export is; write {_FORMS}")
    if len(export.encode()) > MAX_STRING_BYTES:
        raise UriNotSupportedError(f"an export's name has {MAX_STRING_BYTES} bytes at most")
    if parts.scheme == "nbd" and host and not query:
        return RemoteUri(export=export, host=host, port=DEFAULT_PORT if port is None else port)
    if parts.scheme == "nbd+unix" and not parts.netloc and [key for key, _ in query] == ["socket"]:
        return RemoteUri(export=export, socket_path=_a_socket(uri, query[0][1]))
    raise UriNotSupportedError(f"{uri} is no URI of a remote export; write {_FORMS}")


def _a_socket(uri: str, path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise UriNotSupportedError(f"{uri}: the socket's path is not absolute")
    if len(path.encode(errors="surrogateescape")) > SOCKET_PATH_BYTES_MAX:
        raise UriNotSupportedError(f"{uri}: a socket's path has {SOCKET_PATH_BYTES_MAX} bytes at most")
    return path
