"""Every bound of the export, in one place."""

from dataclasses import dataclass

RECEIVE_BYTES = 256 << 10
"""The buffer that requests arrive in: a batch of small writes, payloads and all."""

INLINE_PAYLOAD_BYTES = 64 << 10
"""Payloads up to this stay where they arrived; a longer one gets a buffer of its own. Far below RECEIVE_BYTES."""

SPARE_ROOM_BYTES = 64 << 10
"""A receive buffer with less room than this is exchanged, so that one read still brings a whole batch."""

RESERVE_BYTES = 512 << 10
"""What a connection may hold when the pool is exhausted: a receive buffer, and as much again for small requests' data."""

AT_ONCE_BYTES = 16 << 10
"""Reads up to this are served at once where that needs no waiting: a full window of them takes less than a millisecond."""

TRAY_BYTES = 128 << 10
"""The buffer that a batch of such reads is served from."""

STATUS_EXTENTS = 1024
"""What one block status reply tells of at most: finding them takes a millisecond or two, for which others wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server, each of its exports, and each of their connections may hold."""

    connections: int = 128  # to one export, so that its clients lock out nobody else's
    handshakes: int = 128  # sockets that have not chosen an export yet; beyond it the oldest gives way
    requests_per_connection: int = 256  # with their replies, until these are sent
    payload_bytes_per_connection: int = 64 << 20  # likewise; one request more may be admitted
    handshake_seconds: float = 10.0
    linger_seconds: float = 5.0  # for a client that does not take its last replies
    sweep_seconds: float = (
        5.0  # while others wait for memory, half of what a client keeps waiting must move in this time
    )
