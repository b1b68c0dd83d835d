"""A Unix socket that says how this process is: `ok` or `no`, and a sentence; one line, and the connection ends.

Whoever connects is answered by the event loop itself, so that a process which hangs does not pass for a healthy one. It
needs no credentials, and the asker (`shared.supervision.check`) nothing but the standard library.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, cast

_log = logging.getLogger(__name__)

OK, NO = "ok", "no"


class Health(NamedTuple):
    """How a process is."""

    is_ok: bool
    sentence: str


class _Answer(asyncio.Protocol):
    def __init__(self, health: Callable[[], Health]) -> None:
        self._health = health

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Someone asks."""
        is_ok, sentence = self._health()
        writing = cast("asyncio.WriteTransport", transport)
        writing.write(f"{OK if is_ok else NO} {' '.join(sentence.split())}\n".encode())
        writing.close()


@asynccontextmanager
async def health_socket(path: Path | None, health: Callable[[], Health]) -> AsyncIterator[None]:
    """Answer there for as long as the context is open; nowhere without a path.

    One that cannot be had is no reason to serve nobody: it is said, and the check fails.
    """
    if path is None:
        yield
        return
    try:
        server = await asyncio.get_running_loop().create_unix_server(lambda: _Answer(health), str(path))
    except OSError as error:
        _log.warning("Nobody can ask for this process's health: %s: %s", path, error)
        yield
        return
    try:
        yield
    finally:
        server.close()
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
