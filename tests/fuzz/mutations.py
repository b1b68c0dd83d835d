"""Spoils sessions a little: most of each stays valid, so that what is wrong is met deep inside."""

import random
import struct
from collections.abc import Callable, Sequence

INTERESTING = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    511,
    513,
    0xFFFF,
    0x10000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 63,
)
PIECES_MAX = 400
HEADERS_BYTES = 28  # where lengths, offsets, flags and magics are

Mutation = Callable[[random.Random, list[bytes]], None]


def _flip_bit(chance: random.Random, messages: list[bytes]) -> None:
    at = chance.randrange(len(messages))
    message = bytearray(messages[at])
    message[_position(chance, message)] ^= 1 << chance.randrange(8)
    messages[at] = bytes(message)


def _put_number(chance: random.Random, messages: list[bytes]) -> None:
    at = chance.randrange(len(messages))
    message = bytearray(messages[at])
    code = chance.choice((">H", ">I", ">Q"))
    number = chance.choice(INTERESTING) & ((1 << 8 * struct.calcsize(code)) - 1)
    position = _position(chance, message)
    packed = struct.pack(code, number)[: len(message) - position]
    message[position : position + len(packed)] = packed
    messages[at] = bytes(message)


def _cut_off(chance: random.Random, messages: list[bytes]) -> None:
    at = chance.randrange(len(messages))
    messages[at] = messages[at][: _position(chance, messages[at])] or b"\0"


def _leave_out(chance: random.Random, messages: list[bytes]) -> None:
    if len(messages) > 1:
        del messages[chance.randrange(len(messages))]


def _repeat(chance: random.Random, messages: list[bytes]) -> None:
    at = chance.randrange(len(messages))
    messages[at:at] = [messages[at]] * chance.choice((1, 1, 2, 50))


def _swap(chance: random.Random, messages: list[bytes]) -> None:
    one, other = chance.randrange(len(messages)), chance.randrange(len(messages))
    messages[one], messages[other] = messages[other], messages[one]


def _insert_garbage(chance: random.Random, messages: list[bytes]) -> None:
    messages.insert(chance.randrange(len(messages) + 1), chance.randbytes(chance.choice((1, 3, 28, 500))))


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bit, _flip_bit, _put_number, _put_number, _put_number, _cut_off, _leave_out, _repeat, _swap, _insert_garbage,
)  # fmt: skip


def mutated(chance: random.Random, messages: Sequence[bytes]) -> bytes:
    """The stream of a session with a few things wrong, or none."""
    spoiled = list(messages)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 8))):
        chance.choice(MUTATIONS)(chance, spoiled)
    return b"".join(spoiled)


def cut(chance: random.Random, stream: bytes) -> list[bytes]:
    """The same stream in pieces, of a few bytes or of thousands."""
    most = max(chance.choice((3, 30, 300, 5000, 100_000)), len(stream) // PIECES_MAX)
    pieces = []
    while stream:
        length = chance.randint(1, most)
        pieces.append(stream[:length])
        stream = stream[length:]
    return pieces


def _position(chance: random.Random, message: bytes | bytearray) -> int:
    """Mostly in the header."""
    most = len(message) if chance.random() < 0.2 else min(len(message), HEADERS_BYTES)
    return chance.randrange(most)
