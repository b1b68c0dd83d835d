"""A Unix socket that says how this process is: `ok` or `no`, and a sentence; one line, and the connection ends.

Whoever connects is answered by the event loop itself, so that a process which hangs does not pass for a healthy one. It
needs no credentials, and the asker (`shared.supervision.check`) nothing but the standard library.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from shared.one_answer import OneAnswer

_log = logging.getLogger(__name__)

OK, NO = "ok", "no"


class Health(NamedTuple):
    """How a process is."""

    is_ok: bool
    sentence: str


@asynccontextmanager
async def health_socket(path: Path | None, health: Callable[[], Health]) -> AsyncIterator[None]:
    """Answer there for as long as the context is open; nowhere without a path.

    One that cannot be had is no reason to serve nobody: it is said, and the check fails.
    """
    if path is None:
        yield
        return
    try:
        server = await asyncio.get_running_loop().create_unix_server(
            OneAnswer(lambda: _line(health())), str(path)
        )
    except OSError as error:
        _log.warning("Nobody can ask for this process's health: %s: %s", path, error)
        yield
        return
    try:
        yield
    finally:
        server.close()
        _remove(path)


def _line(health: Health) -> bytes:
    return f"{OK if health.is_ok else NO} {' '.join(health.sentence.split())}\n".encode()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
