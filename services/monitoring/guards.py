"""What every answer of the page carries, and which requests are not answered at all.

The policy lets the page load its own files and nothing else: no script, style, font or image from elsewhere, none that stands
in the document, no frame around it. Only requests that name this place are answered, so that a foreign site cannot have a name of
its own led here: a loopback name, a name of the configuration, or, where other machines reach it, an address, which is no name.
"""

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class Guard:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, *, loopback_only: bool, host_names: Collection[str] = ()) -> None:
        """With `loopback_only`, no address counts but those of loopback."""
        self._app = app
        self._loopback_only = loopback_only
        self._names = _LOOPBACK_NAMES | frozenset(host_names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on and add the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if not self._is_ours(_host_name(Headers(scope=scope))):
            answer = PlainTextResponse(
                "This page is not served under that name; monitoring.host_names has those that it is.\n",
                status_code=421,
            )
            await answer(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _is_ours(self, name: str) -> bool:
        return name in self._names or (not self._loopback_only and _is_address(name))


def is_same_origin(headers: Headers, scheme: str) -> bool:
    """Whether a request was made by a page of ours: browsers say of every POST where it comes from."""
    origin, host = headers.get("origin", ""), headers.get("host", "")
    return bool(host) and origin in {f"{scheme}://{host}", f"https://{host}"}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_name(headers: Headers) -> str:
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""
