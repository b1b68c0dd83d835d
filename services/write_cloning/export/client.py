"""Who is at the other end of a connection, for people to read."""

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A connected client: its name for people, and since when (RFC 3339)."""

    name: str
    connected_at: str


def name_peer(connection: socket.socket) -> str:
    """A name for people: program, process and user behind a Unix socket, else the address.

    The number is left out of a process that has none here, as one outside of our container: the kernel says 0.
    """
    if connection.family == socket.AF_UNIX:
        pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return f"{_program(pid)} (pid {pid}, uid {uid})" if pid else f"a process (uid {uid})"
    try:
        host, port = connection.getpeername()[:2]
    except OSError:
        return "a client that has gone"
    return f"[{host}]:{port}" if connection.family == socket.AF_INET6 else f"{host}:{port}"


def _program(pid: int) -> str:
    """The program's name; procfs answers from memory, so this does not block."""
    if pid == os.getpid():
        return "this process"
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"
