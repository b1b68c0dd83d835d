"""nats-py's client, without six of its habits that a service cannot live with.

- It goes on without TLS when the server offers none, whoever that server is.
- It gives up for good when the server ends the connection with an error other than a denied subject: a key that was
  replaced, a limit that was reached. Such a connection has to come back by itself when the reason is gone.
- It asks a server that refuses its credentials as often as one that is restarted: four times a second, for days perhaps, with a
  line each in the server's log.
- Its inboxes are counted up from one another. Whoever is asked sees one, and may publish to all of the asker's role: he
  must not know those on which others answer. So each has a secret of its own, and so has what they all begin with, which the
  server's monitoring page shows.
- Closed while it connects again, it may go on with that for ever: the one cancellation can be lost (see `shared.stopping`).
- It takes a key only from a package that cannot be installed here (see `shared.bus.nkeys`).
"""

import asyncio
import base64
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from shared.bus.credentials import Credentials
from shared.bus.denials import is_of_credentials, read_denial
from shared.stopping import end

RECONNECT_WAIT_S = 0.25
REFUSED_WAIT_MAX_S = 5.0  # so soon a key that the server knows again is taken
_WRITTEN_MAX = 1000  # what was denied is told within a moment, and answers have a subject each
_SECRET_BYTES = 16  # of what nobody guesses


class _Secrets:
    """In the place of nats-py's counter: what it makes inboxes, and the ends of their names, of."""

    @staticmethod
    def next() -> bytearray:
        """One that nobody knows, and of 22 characters, which nats-py counts on."""
        return bytearray(secrets.token_urlsafe(_SECRET_BYTES).encode())


def inbox_below(prefix: str) -> str:
    """A prefix of one connection's own, below the one that its user may hear."""
    return f"{prefix}.{secrets.token_urlsafe(_SECRET_BYTES)}"


def _is_news(record: logging.LogRecord) -> bool:
    # What the loop says whenever a server ends a connection with TLS, because of how nats-py has set it up.
    return "eof_received() has no effect when using ssl" not in str(record.msg)


logging.getLogger("asyncio").addFilter(_is_news)


class NoTls(nats.errors.Error):
    """The server offers no TLS, and nothing else will do."""

    def __str__(self) -> str:
        return "it offers no TLS, which the configuration demands"


class SteadyClient(Client):
    """One client. It is connected by `connect`, as nats-py's is."""

    def __init__(self, credentials: Credentials, *, demands_tls: bool) -> None:
        """Nothing is connected yet."""
        super().__init__()
        self._demands_tls = demands_tls
        self.written: OrderedDict[str, str] = (
            OrderedDict()
        )  # subjects that we have used, by what they are in lower case
        self._key = credentials.key
        self._public_nkey = self._key.public_key if self._key is not None else None
        self._nuid = _Secrets()  # type: ignore[assignment] # of which nats-py calls `next` alone

    @property
    def signing(self) -> Callable[[str], bytes] | None:
        """What signs the server's nonce, for `connect`; nothing where there is no key."""
        key = self._key
        if key is None:
            return None
        return lambda nonce: base64.b64encode(key.sign(nonce.encode()))

    def pace_after(self, error: Exception | None) -> None:
        """Wait twice as long for the next attempt as for the last, while our credentials are refused.

        Any other error, and none (there is a connection), ends that: a server that is restarted is soon back.
        """
        is_refused = error is not None and is_of_credentials(error)
        wait_s = min(2 * self.options["reconnect_time_wait"], REFUSED_WAIT_MAX_S)
        self.options["reconnect_time_wait"] = wait_s if is_refused else RECONNECT_WAIT_S

    async def close(self) -> None:
        """See nats-py; also its attempts to connect again are over then."""
        try:
            await super().close()
        finally:
            task = self._reconnection_task
            if task is not None and task is not asyncio.current_task():
                await end(task)

    async def abandon(self) -> None:
        """Close, also when a close was interrupted half-way: nats-py then takes it for done, and keeps the socket."""
        if self._flush_queue is not None:  # nats-py asserts that it began; after a malformed URL it has not
            await self.close()
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """See nats-py; also behind every request."""
        self._note(subject)
        await super().publish(subject, payload, reply, headers)

    async def subscribe(self, subject: str, *arguments: Any, **options: Any) -> Subscription:  # noqa: ANN401 - nats-py's own
        """See nats-py."""
        self._note(subject)
        return await super().subscribe(subject, *arguments, **options)

    def _note(self, subject: str) -> None:
        self.written[subject.lower()] = subject
        self.written.move_to_end(subject.lower())
        if len(self.written) > _WRITTEN_MAX:
            self.written.popitem(last=False)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # Before anything is sent: neither a subject nor a message leaves on a line that is not encrypted.
        if initial_connection and self._demands_tls and not info.get("tls_required"):
            raise NoTls
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        error = nats.errors.Error(f"nats: {err_msg}")
        if read_denial(error) is not None:
            await self._error_cb(error)
            return
        await self._error_cb(error)
        await self._process_op_err(error)
