"""Valid sessions, as a client sends them, message by message: what a mutation begins with. Without them it finds nothing.

Written from the protocol's document, with none of our own packers: what both sides of a test share cannot be found wrong by it.
"""

import random
import struct

CLIENT_FLAGS = struct.pack(">I", 3)
REQUEST_MAGIC = 0x25609513

READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
COMMANDS = (READ, WRITE, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS)
FLAGS = (0, 0, 0, 1, 2, 4, 8, 16)  # FUA, no hole, don't fragment, only one extent, fast zero
LENGTHS = (1, 512, 4096, 4096, 5000, 65_536, 70_000)

OPTION_EXPORT_NAME, OPTION_ABORT, OPTION_LIST, OPTION_STARTTLS = 1, 2, 3, 5
OPTION_INFO, OPTION_GO, OPTION_STRUCTURED_REPLY, OPTION_LIST_META, OPTION_SET_META = 6, 7, 8, 9, 10


def option(number: int, payload: bytes = b"") -> bytes:
    return struct.pack(">8sII", b"IHAVEOPT", number, len(payload)) + payload


def export_query(name: bytes, *infos: int) -> bytes:
    return struct.pack(f">I{len(name)}sH{len(infos)}H", len(name), name, len(infos), *infos)


def context_query(name: bytes, *contexts: bytes) -> bytes:
    listed = b"".join(struct.pack(">I", len(each)) + each for each in contexts)
    return struct.pack(">I", len(name)) + name + struct.pack(">I", len(contexts)) + listed


def handshake(chance: random.Random, name: str) -> list[bytes]:
    """Up to the agreement, by one of the ways that there are."""
    export = name.encode()
    messages = [CLIENT_FLAGS]
    if chance.random() < 0.7:
        messages.append(option(OPTION_STRUCTURED_REPLY))
    others = (
        option(OPTION_LIST),
        option(OPTION_STARTTLS),
        option(OPTION_INFO, export_query(export, 0, 1, 2, 3)),
        option(OPTION_INFO, export_query(b"nobody's")),
        option(OPTION_LIST_META, context_query(export, b"base:")),
        option(OPTION_SET_META, context_query(export, b"base:allocation", b"cutover:region")),
        option(99, b"what is this"),
    )
    messages += chance.choices(others, k=chance.randrange(3))
    if chance.random() < 0.2:
        return [*messages, option(OPTION_EXPORT_NAME, export)]
    return [*messages, option(OPTION_GO, export_query(export, 3))]


def requests(chance: random.Random, size_bytes: int, count: int) -> list[bytes]:
    """Requests within the export, each with its payload."""
    messages = []
    for cookie in range(count):
        command = chance.choice(COMMANDS)
        length = 0 if command == FLUSH else chance.choice(LENGTHS)
        offset = 0 if command == FLUSH else chance.randrange(size_bytes - length)
        header = struct.pack(">IHHQQI", REQUEST_MAGIC, chance.choice(FLAGS), command, cookie, offset, length)
        messages.append(header + (chance.randbytes(length) if command == WRITE else b""))
    if chance.random() < 0.5:
        messages.append(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, DISCONNECT, count, 0, 0))
    return messages


def session(chance: random.Random, name: str, size_bytes: int) -> list[bytes]:
    """A whole one."""
    return handshake(chance, name) + requests(chance, size_bytes, chance.randrange(1, 30))
