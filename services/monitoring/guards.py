"""What every answer of the page carries, and which requests are not answered at all.

The policy lets the page load its own files and nothing else: no script, style, font or image from elsewhere, none that stands
in the document, no frame around it. On a loopback address only requests that name one are answered, so that a foreign site
cannot have a name of its own led here.
"""

from collections.abc import Mapping
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

    def __init__(self, app: ASGIApp, *, loopback_only: bool) -> None:
        """With `loopback_only`, a request has to be for a loopback name."""
        self._app = app
        self._loopback_only = loopback_only

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

        if self._loopback_only and _host_name(Headers(scope=scope)) not in _LOOPBACK_NAMES:
            answer = PlainTextResponse(
                "This page is served on a loopback address, by that name.\n", status_code=421
            )
            await answer(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def is_same_origin(headers: Headers, scheme: str) -> bool:
    """Whether a request was made by a page of ours: browsers say of every POST where it comes from."""
    origin, host = headers.get("origin", ""), headers.get("host", "")
    return bool(host) and origin in {f"{scheme}://{host}", f"https://{host}"}


def _host_name(headers: Headers) -> str:
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""
