"""Flushes of the application, shared: one serves all that came before it began; those that come while it runs share the next."""

from collections.abc import Callable

from services.write_cloning.volume.requests import Kind, Request


class Flushes:
    """Those of one volume. It decides when one begins, not where it goes."""

    def __init__(self, send: Callable[[Request], None]) -> None:
        """`send` takes a flush to the devices, and completes it."""
        self.under_way: Request | None = None
        self._send = send
        self._next: list[Request] = []

    def ask(self, request: Request) -> None:
        """Answer the request by a flush that begins from here on."""
        self._next.append(request)
        if self.under_way is None:
            self._begin()

    def _begin(self) -> None:
        flush = Request(Kind.FLUSH, 0, 0, self._done, owner=self._next)
        self._next = []
        self.under_way = flush
        self._send(flush)

    def _done(self, flush: Request) -> None:
        self.under_way = None
        waiters: list[Request] = flush.owner  # type: ignore[assignment]
        if self._next:
            self._begin()
        for request in waiters:
            request.error = flush.error
            request.complete(request)
