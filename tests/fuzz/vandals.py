"""Clients that keep to nothing: they send what a mutation has left of a session, and then behave in one of the worst ways."""

import random
import socket
import struct
from enum import Enum, auto
from pathlib import Path

from tests.fuzz.corpus import (
    CLIENT_FLAGS,
    OPTION_GO,
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


def visit(path: Path, name: str, size_bytes: int, seed: int) -> Manner:
    """One session of a vandal.

    Raises:
        Hung: the server has not hung up on a client that says no more.
    """
    chance = random.Random(seed)
    stream = mutated(chance, session(chance, name, size_bytes))
    manner = chance.choice(list(Manner))
    with connect(path) as connection:
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
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(PATIENCE_S)


def _take(connection: socket.socket) -> None:
    connection.setblocking(False)
    try:
        while connection.recv(PIECES_READ):
            pass
    except BlockingIOError:
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
