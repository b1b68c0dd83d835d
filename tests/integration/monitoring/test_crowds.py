"""A crowd of connections to the page: silent ones, slow ones, and more browsers than there are places for."""

import resource
import select
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from services.monitoring import connections, web
from services.monitoring.access import Access
from services.monitoring.browsers import BROWSERS_MAX
from services.monitoring.web import Operator
from tests.support.page import Page, page_of

FILES = 4096
PATIENCE_S = 20.0
REQUEST = b"GET /%b HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


@pytest.fixture(autouse=True)
def _room_for_a_crowd() -> Iterator[None]:
    """Both ends of every connection are this process's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def page() -> Iterator[Page]:
    with page_of(1) as (page, _):
        yield page


class Crowd:
    """Connections to the page."""

    def __init__(self, page: Page, stack: ExitStack) -> None:
        self._place = urlsplit(page.url).hostname, urlsplit(page.url).port
        self._stack = stack

    def come(self, count: int, sent: bytes = b"") -> list[socket.socket]:
        """So many more, each of which sends that at once. Some may be sent away."""
        came = []
        for _ in range(count):
            opened = self._stack.enter_context(socket.create_connection(self._place, timeout=PATIENCE_S))
            came.append(opened)
            if sent:
                try:
                    opened.sendall(sent)
                except ConnectionError:
                    continue
        return came


@pytest.fixture
def crowd(page: Page) -> Iterator[Crowd]:
    with ExitStack() as stack:
        yield Crowd(page, stack)


def answer_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        answer.read()
        return int(answer.status)


def first_line(connection: socket.socket) -> bytes:
    """Of the answer; nothing where the connection was closed without one."""
    try:
        return connection.recv(65536).partition(b"\r\n")[0]
    except ConnectionError:
        return b""


def is_closed_within(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        return connection.recv(65536) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GET /events HTT"])
def test_silent_connections_take_nothing_from_the_others(page: Page, crowd: Crowd, sent: bytes) -> None:
    """600 of them once had everybody told `503`, for as long as they stayed."""
    crowd.come(600, sent)
    for path in ("healthz", "metrics", ""):
        assert answer_of(page.url + path) == 200
    (stream,) = crowd.come(1, REQUEST % b"events")
    assert first_line(stream).endswith(b"200 OK")


def test_oldest_silent_connection_gives_way_and_one_that_is_answered_does_not(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 3)
    (stream,) = crowd.come(1, REQUEST % b"events")
    assert first_line(stream).endswith(b"200 OK")
    first, second, third = (crowd.come(1)[0] for _ in range(3))
    assert is_closed_within(first, PATIENCE_S)
    assert not is_closed_within(second, 0.1)
    assert not is_closed_within(third, 0.1)
    stream.settimeout(PATIENCE_S)
    assert stream.recv(65536)


@pytest.mark.parametrize("before", [b"", REQUEST % b"healthz"])
def test_connection_that_brings_no_request_in_time_is_closed(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    """Also one that brings it a character at a time, and one that has had an answer before."""
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.5)
    (slow,) = crowd.come(1, before)
    if before:
        assert first_line(slow).endswith(b"200 OK")
    end = time.monotonic() + PATIENCE_S
    for letter in REQUEST % (b"x" * 8000):
        assert time.monotonic() < end
        try:
            slow.send(bytes([letter]))
        except ConnectionError:
            break
        if select.select([slow], [], [], 0.05)[0] and is_closed_within(slow, 1):
            break
    else:
        pytest.fail("it was never closed")


def test_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "BODY_TIMEOUT_S", 0.2)
    operator = Operator(access=Access("t" * 43, lambda: 0.0), commanding=lambda: None)
    with page_of(1, operator) as (page, _), ExitStack() as stack:
        origin = page.url.rstrip("/").encode()
        head = b"POST /login HTTP/1.1\r\nhost: %b\r\norigin: %b\r\ncontent-length: 9\r\n\r\n{"
        (slow,) = Crowd(page, stack).come(1, head % (origin.removeprefix(b"http://"), origin))
        assert first_line(slow).endswith(b"400 Bad Request")


def test_first_hundred_browsers_are_served_when_a_thousand_come(page: Page, crowd: Crowd) -> None:
    """All of them were once told `503`, and so was everyone else."""
    came = crowd.come(1000, REQUEST % b"events")
    for path in ("healthz", "metrics"):
        assert answer_of(page.url + path) == 200
    served = [each for each in came if first_line(each).endswith(b"200 OK")]
    assert len(served) == BROWSERS_MAX
    for each in served:
        each.close()
    end = time.monotonic() + PATIENCE_S
    while not first_line(crowd.come(1, REQUEST % b"events")[0]).endswith(b"200 OK"):
        assert time.monotonic() < end, "a place that was left is not given to another"
