"""Clients that keep to nothing: they send what a mutation has left of a session, and then behave in one of the worst ways."""

import contextlib
import random
import socket
import ssl
import struct
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from tests.fuzz.corpus import (
    CLIENT_FLAGS,
    OPTION_GO,
    OPTION_STARTTLS,
    READ,
    REQUEST_MAGIC,
    WRITE,
    export_query,
    option,
    session,
)
from tests.fuzz.mutations import cut, mutated

PATIENCE_S = (
    40.0  # to be hung up on; a stalled client is given ten seconds for a handshake, five for its last replies
)
GREETING_BYTES = 18
PIECES_READ = 1 << 16
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Manner(Enum):
    """What a client does when it has sent everything."""

    VANISH = auto()  # closes, with replies and payloads under way
    SAY_NO_MORE = auto()  # closes its sending side, and takes every reply
    NEVER_READ = auto()  # takes no reply while it sends


class Hung(Exception):
    """The server neither answered nor hung up."""


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE_S)
    connection.connect(str(path))
    return connection


@dataclass(frozen=True, slots=True)
class TlsDoor:
    """Where clients are served under TLS, and what they do it with."""

    port: int
    context: ssl.SSLContext


def visit(path: Path, tls: TlsDoor, name: str, size_bytes: int, seed: int) -> Manner:
    """One session of a vandal: in clear text, under TLS, or at odds with TLS itself.

    Raises:
        Hung: the server has not hung up on a client that says no more.
    """
    chance = random.Random(seed)
    messages = session(chance, name, size_bytes)
    manner = chance.choice(list(Manner))
    match chance.randrange(4):
        case 0:
            connection, stream = _secured(tls), mutated(chance, messages[1:])
        case 1:
            connection, stream = _ready_for_tls(tls), mutated(chance, [_hello(tls), *messages])
        case _:
            connection, stream = connect(path), mutated(chance, messages)
    return _rage(connection, stream, manner, chance)


def _rage(connection: socket.socket, stream: bytes, manner: Manner, chance: random.Random) -> Manner:
    with connection:
        try:
            _send(connection, cut(chance, stream), reads=manner is not Manner.NEVER_READ)
            if manner is Manner.SAY_NO_MORE:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(PIECES_READ):
                    pass
        except TimeoutError as error:
            raise Hung(f"{manner}") from error
        except OSError:
            return manner  # hung up on: that is an answer
    return manner


def _ready_for_tls(tls: TlsDoor) -> socket.socket:
    """A connection whose server waits for the first word of TLS."""
    connection = socket.create_connection(("127.0.0.1", tls.port), PATIENCE_S)
    connection.sendall(CLIENT_FLAGS + option(OPTION_STARTTLS))
    left = GREETING_BYTES + 20
    while left:
        left -= len(connection.recv(left))
    return connection


def _secured(tls: TlsDoor) -> socket.socket:
    return tls.context.wrap_socket(_ready_for_tls(tls), server_hostname="localhost")


def _hello(tls: TlsDoor) -> bytes:
    """The first word of TLS."""
    said = ssl.MemoryBIO()
    client = tls.context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return said.read()


def _send(connection: socket.socket, pieces: list[bytes], *, reads: bool) -> None:
    """Send, and take what is there in between, so that neither side waits for the other; or give up where one would wait."""
    for piece in pieces:
        if reads:
            _take(connection)
            connection.sendall(piece)
        elif not _sent_at_once(connection, piece):
            return


def _sent_at_once(connection: socket.socket, piece: bytes) -> bool:
    connection.setblocking(False)
    try:
        return connection.send(piece) == len(piece)
    except WOULD_BLOCK:
        return False
    finally:
        connection.settimeout(PATIENCE_S)


def _take(connection: socket.socket) -> None:
    connection.setblocking(False)
    try:
        while connection.recv(PIECES_READ):
            pass
    except WOULD_BLOCK:
        return
    finally:
        connection.settimeout(PATIENCE_S)


def glutton(path: Path, name: str, *, length: int, reads: int) -> socket.socket:
    """A connection that has asked for much, announced a write of as much, sent a part of it, and takes no reply."""
    connection = connect(path)
    connection.sendall(CLIENT_FLAGS + option(OPTION_GO, export_query(name.encode())))
    asked = b"".join(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, READ, each, 0, length) for each in range(reads))
    announced = struct.pack(">IHHQQI", REQUEST_MAGIC, 0, WRITE, reads, 0, length)
    connection.setblocking(False)
    connection.send(asked + announced + bytes(1000))
    return connection
