"""What a host tells whoever connects to the Unix socket in its state directory: for when NATS, and so the journal, is away.

It does not pass on the bus. Nothing has to be sent to be told: the whole is one JSON document, and the connection ends.
"""

from dataclasses import dataclass
from pathlib import Path

from shared.messages.host import ClosedView
from shared.messages.status import MigrationStatus

LOCAL_BYTES_MAX = 64 * 1024 * 1024  # some thousand migrations


def local_socket(state_dir: Path) -> Path:
    """Where the host with that state directory is asked."""
    return state_dir / "status.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStatus:
    """A host, and all its migrations by what it knows alone."""

    host: str
    run: int
    sentence: str  # what its service is about
    nats_is_away: bool
    nats_lost_at: str | None  # None, too, where there was no connection in this run yet
    migrations: tuple[MigrationStatus, ...] = ()
    closed: tuple[ClosedView, ...] = ()
    at: str
