"""The page's routes: its files, the stream, the metrics, and for an operator the log-in and the commands."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from services.monitoring.access import Access, ForbiddenError
from services.monitoring.attempts import Attempts
from services.monitoring.browsers import BROWSERS_MAX, Browsers
from services.monitoring.commanding import Commanding
from services.monitoring.diagram import diagram_svg
from services.monitoring.guards import Guard, is_same_origin
from services.monitoring.metrics import exposition
from services.monitoring.picture import Picture
from shared.migration.refusals import Code, Refusal

STATIC = Path(__file__).parent / "static"
COOKIE = "cutover_session"
CSRF_HEADER = "x-cutover-csrf"
BODY_BYTES_MAX = 4096
BODY_TIMEOUT_S = 10.0
LAST_ID_MAX = 128

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """What an operator's credential adds. `commanding` is there while its connection is."""

    access: Access
    commanding: Callable[[], Commanding | None]


class Json(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """The bytes."""
        return orjson.dumps(content)


def application(
    picture: Picture,
    browsers: Browsers,
    operator: Operator | None,
    *,
    loopback_only: bool,
    host_names: Collection[str] = (),
) -> Starlette:
    """The whole application; commands exist only with an operator."""
    pages = _Pages(picture, browsers)
    routes = [
        Route("/", _page()),
        Route("/events", pages.events),
        Route("/metrics", pages.metrics),
        Route("/healthz", _alive),
    ]
    commands = _Commands(operator)
    routes += [
        Route("/session", commands.session),
        Route("/login", commands.log_in, methods=["POST"]),
        Route("/logout", commands.log_out, methods=["POST"]),
        Route("/migrations/{name}/offered", commands.offered),
        Route("/migrations/{name}/question/{command}", commands.question),
        Route("/migrations/{name}/command/{command}", commands.carry_out, methods=["POST"]),
    ]
    guard = Middleware(Guard, loopback_only=loopback_only, host_names=host_names)
    app = Starlette(routes=routes, middleware=[guard])
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(ForbiddenError, _forbidden)
    return app


def _page() -> Handler:
    """The document, with the diagram in it: no script could put it there, as markup is no script's business."""
    text = (STATIC / "index.html").read_text().replace("<!-- diagram -->", diagram_svg())

    async def serve(_request: Request) -> Response:
        return HTMLResponse(text)

    return serve


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


class _Stream(StreamingResponse):
    """The stream of one browser. It has its place before anything is waited for: no more come than there are places."""

    def __init__(self, browsers: Browsers, last_id: str, selected: str) -> None:
        super().__init__(
            browsers.stream(last_id, selected),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},
        )
        self._browsers = browsers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `StreamingResponse`."""
        with self._browsers.place():
            await super().__call__(scope, receive, send)


class _Pages:
    """What everybody may see."""

    def __init__(self, picture: Picture, browsers: Browsers) -> None:
        self._picture = picture
        self._browsers = browsers

    async def events(self, request: Request) -> Response:
        """The stream of one browser."""
        if self._browsers.count >= BROWSERS_MAX:
            return PlainTextResponse("Too many pages are open.\n", status_code=503)
        last_id = request.headers.get("last-event-id") or request.query_params.get("after", "")
        selected = request.query_params.get("migration", "")
        return _Stream(self._browsers, last_id[:LAST_ID_MAX], selected[:LAST_ID_MAX])

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        accepted = request.headers.get("accept", "")
        content, kind = await asyncio.to_thread(exposition, self._picture, accepted)
        return Response(content, headers={"content-type": kind})


class _Commands:
    """What only an operator may do. Each request is looked at here before anything is made of it."""

    def __init__(self, operator: Operator | None) -> None:
        self._operator = operator
        self._attempts = Attempts(lambda delay_s, call: asyncio.get_running_loop().call_later(delay_s, call))

    async def session(self, request: Request) -> Response:
        """Whether commands exist here, and whether this browser may give them."""
        if self._operator is None:
            return Json({"offers_commands": False, "csrf": None})
        session = self._operator.access.session(request.cookies.get(COOKIE, ""))
        return Json({"offers_commands": True, "csrf": session.csrf_token if session else None})

    async def log_in(self, request: Request) -> Response:
        """Take the token, give a session."""
        operator = self._required(request)
        token = (await _body(request)).get("token")
        session = operator.access.log_in(token) if isinstance(token, str) else None
        peer = request.client.host if request.client is not None else None
        if session is None:
            self._attempts.failed(peer)
            raise ForbiddenError("That is not the access token.")
        self._attempts.succeeded(peer)
        answer = Json({"offers_commands": True, "csrf": session.csrf_token})
        is_secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, session.cookie, httponly=True, samesite="strict", secure=is_secure)
        return answer

    async def log_out(self, request: Request) -> Response:
        """End the session."""
        operator = self._commanding_operator(request)
        operator.access.log_out(request.cookies.get(COOKIE, ""))
        answer = Json({"offers_commands": True, "csrf": None})
        answer.delete_cookie(COOKIE)
        return answer

    async def offered(self, request: Request) -> Response:
        """The commands that make sense now."""
        commanding = self._commanding(self._logged_in(request))
        return Json({"commands": await commanding.offered(request.path_params["name"])})

    async def question(self, request: Request) -> Response:
        """What to ask before a command."""
        commanding = self._commanding(self._logged_in(request))
        question = await commanding.question(request.path_params["command"], request.path_params["name"])
        return Json(asdict(question))

    async def carry_out(self, request: Request) -> Response:
        """Carry a command out."""
        commanding = self._commanding(self._commanding_operator(request))
        options = await _body(request)
        reply = await commanding.carry_out(
            request.path_params["command"], request.path_params["name"], options
        )
        return Json(reply)

    def _required(self, request: Request) -> Operator:
        if self._operator is None:
            raise ForbiddenError("This page only shows: it was started without an operator's credential.")
        if request.method == "POST" and not is_same_origin(request.headers, request.url.scheme):
            raise ForbiddenError("The request does not come from this page.")
        return self._operator

    def _logged_in(self, request: Request) -> Operator:
        operator = self._required(request)
        if operator.access.session(request.cookies.get(COOKIE, "")) is None:
            raise ForbiddenError("Log in with the access token first.")
        return operator

    def _commanding_operator(self, request: Request) -> Operator:
        operator = self._logged_in(request)
        if not operator.access.may_command(
            request.cookies.get(COOKIE, ""), request.headers.get(CSRF_HEADER, "")
        ):
            raise ForbiddenError("The request does not carry this session's secret.")
        return operator

    @staticmethod
    def _commanding(operator: Operator) -> Commanding:
        commanding = operator.commanding()
        if commanding is None:
            raise Refusal(Code.JOURNAL_AWAY, "There is no connection to NATS with the operator's credential.")
        return commanding


async def _body(request: Request) -> dict[str, Any]:
    received = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                received += piece
                if len(received) > BODY_BYTES_MAX:
                    raise Refusal(Code.TOO_LARGE, "The request is too large.")
    except TimeoutError:
        raise Refusal(Code.BAD_REQUEST, "The request did not come whole.") from None
    try:
        body = orjson.loads(received or b"{}")
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(Code.BAD_REQUEST, "The request is no JSON object.")
    return body


_STATUSES = {Code.TOO_LARGE: 413, Code.BAD_REQUEST: 400, Code.BAD_NAME: 400}


async def _refused(_request: Request, error: Exception) -> Response:
    if not isinstance(error, Refusal):
        raise error
    return _error(_STATUSES.get(error.code, 409), error.code, error.message)


async def _forbidden(_request: Request, error: Exception) -> Response:
    return _error(403, "forbidden", str(error))


def _error(status: int, code: str, message: str) -> Response:
    return Json({"error": {"code": code, "message": message}}, status_code=status)
