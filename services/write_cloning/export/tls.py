"""TLS on the server's side, for every client of a host: who has a valid certificate, and what each is called.

What costs time, the arithmetic of a handshake, is done in a thread of its own: clients that come in a storm, with a
certificate or without, cost the volumes no more than that thread. It must not know NBD.

Files that were renewed are taken for the clients that come from then on; nobody is disconnected for it.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.clock import Clock
from shared.plain import plain
from shared.tls.files import CertificateError, TlsFiles

log = logging.getLogger(__name__)

SCRATCH_BYTES = 64 << 10
"""What one read of a socket brings at most; what is not decrypted yet stays below twice as much."""

_PEER_NAME_LENGTH_MAX = 80

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsSession:
    """One client's: bytes of the socket on one side, bytes of the protocol on the other, and no socket in between."""

    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    scratch: memoryview  # to receive into; shared by all sessions of a loop, used up within one call

    @property
    def peer(self) -> str:
        """What the client's certificate calls it, for people; empty if it has shown none, or has no name."""
        try:
            name = _common_name(self.tls.getpeercert() or {})
        except Exception as error:  # noqa: BLE001 - OpenSSL has accepted it; a name for people is not worth more than a word
            log.warning("a client's certificate does not tell its name: %r", error)
            return ""
        return plain(name[:_PEER_NAME_LENGTH_MAX])


class Tls:
    """Makes the sessions of one server. Belongs to one event loop."""

    def __init__(self, files: TlsFiles, clock: Clock) -> None:
        """Look at the files.

        Raises:
            CertificateError: with all that is wrong with them.
        """
        self._files = files
        self._clock = clock
        self._stamp = self._stamp_now()
        self._context = self._read()
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._thread = ThreadPoolExecutor(1, "tls")

    async def begin(self) -> TlsSession:
        """A session with a client that is about to shake hands."""
        context = await asyncio.get_running_loop().run_in_executor(self._thread, self._current_context)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        return TlsSession(tls, incoming, outgoing, self._scratch)

    async def advance(self, session: TlsSession) -> bool:
        """Go on with the handshake on what has come; whether it is done. Even after an error `outgoing` is to be sent.

        Raises:
            ssl.SSLError: it failed.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, _advance, session.tls)

    def close(self) -> None:
        """Shake no more hands."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _current_context(self) -> ssl.SSLContext:
        """That of the files as they are now; of those of before, while there is something wrong with them."""
        stamp = self._stamp_now()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._read()
            except CertificateError as error:
                log.error("the files of before are still used for TLS: %s", error)  # noqa: TRY400 - no defect of ours
            except Exception:  # whatever it is: nobody must lose a volume over a new certificate
                log.exception("the files of before are still used for TLS")
            else:
                log.info("TLS is done with the new %s from now on", self._files.certificate)
        return self._context

    def _stamp_now(self) -> _Stamp:
        """What changes with the files; of a file that is missing, nothing."""
        stamps = []
        for _, file in self._files.each():
            try:
                told = file.stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((told.st_ino, told.st_size, told.st_mtime_ns))
        return tuple(stamps)

    def _read(self) -> ssl.SSLContext:
        # Here, because it costs every start of a host a while, and most have no TLS.
        from shared.tls.certificates import server_context  # noqa: PLC0415

        return server_context(self._files, datetime.fromisoformat(self._clock.now_rfc3339()))


def _common_name(certificate: Mapping[str, Any]) -> str:
    """Of a certificate as `ssl` tells it: a subject is a tuple of tuples of pairs."""
    pairs = (pair for part in certificate.get("subject", ()) for pair in part)
    return next((str(value) for key, value in pairs if key == "commonName"), "")


def _advance(tls: ssl.SSLObject) -> bool:
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
