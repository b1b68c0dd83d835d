"""Disks with a volatile cache, all fed by one power supply: an NBD server of the standard library alone, a process of its own.

A write is in the cache until a flush; a cut is one instant for all disks, after which nothing is answered any more. What then
survives of the cache is nothing, all, or any sectors of it. It knows nothing of Cutover, least of all of its NBD.

    python -m tests.crashes.disks SOCKET NAME=FILE... [--ignore-flushes NAME]

A line on standard input is one of `cut none|all|some SEED` (the files are then what survived, and the process ends) and
`fail NAME`, `work NAME`: whether writes to a disk fail. Each is answered by a line.
"""

import argparse
import asyncio
import contextlib
import os
import random
import struct
import sys
from pathlib import Path

SECTOR_BYTES = 512
HAS_FLAGS, SEND_FLUSH, SEND_FUA = 1, 4, 8
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FUA = 1
OPTION_EXPORT_NAME, OPTION_ABORT, OPTION_GO = 1, 2, 7
REPLY_ACK, REPLY_INFO, REPLY_UNSUPPORTED, REPLY_UNKNOWN = 1, 3, 0x80000001, 0x80000006
EIO, EINVAL = 5, 22


class Disk:
    """One disk: what is on the platter, and what only its cache has."""

    def __init__(self, file: Path, *, ignores_flushes: bool) -> None:
        self._file = file
        self._platter = bytearray(file.read_bytes())
        self._seen = bytearray(self._platter)  # platter and cache together
        self._cache: list[tuple[int, bytes]] = []
        self._ignores_flushes = ignores_flushes
        self.fails_writes = False

    @property
    def size_bytes(self) -> int:
        return len(self._platter)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._seen[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self._seen[offset : offset + len(data)] = data
        self._cache.append((offset, data))

    def flush(self) -> None:
        if not self._ignores_flushes:
            self._settle(self._cache)

    def cut(self, survives: str, chance: random.Random) -> None:
        """The power is gone: what is left goes to the file."""
        if survives == "all":
            self._settle(self._cache)
        elif survives == "some":
            self._settle([each for each in self._sectors() if chance.random() < 0.5])
        self._file.write_bytes(self._platter)

    def _sectors(self) -> list[tuple[int, bytes]]:
        return [
            (offset + at, data[at : at + SECTOR_BYTES])
            for offset, data in self._cache
            for at in range(0, len(data), SECTOR_BYTES)
        ]

    def _settle(self, writes: list[tuple[int, bytes]]) -> None:
        for offset, data in writes:
            self._platter[offset : offset + len(data)] = data
        self._cache = []


class Supply:
    """All disks, by name, and the connections to them."""

    def __init__(self, disks: dict[str, Disk]) -> None:
        self._disks = disks

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            disk = await self._negotiate(reader, writer)
            while disk is not None and await _answer_one(disk, reader, writer):
                pass
        writer.close()

    async def _negotiate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Disk | None:
        writer.write(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        await reader.readexactly(4)
        while True:
            _, option, length = struct.unpack(">8sII", await reader.readexactly(16))
            payload = await reader.readexactly(length)
            if option == OPTION_ABORT:
                return None
            if option != OPTION_GO:
                _reply(writer, option, REPLY_UNSUPPORTED)
                continue
            (name_bytes,) = struct.unpack_from(">I", payload)
            disk = self._disks.get(payload[4 : 4 + name_bytes].decode())
            if disk is None:
                _reply(writer, option, REPLY_UNKNOWN)
                continue
            info = struct.pack(">HQH", 0, disk.size_bytes, HAS_FLAGS | SEND_FLUSH | SEND_FUA)
            _reply(writer, option, REPLY_INFO, info)
            _reply(writer, option, REPLY_ACK)
            return disk

    def obey(self, line: str) -> bool:
        """Carry out a line; False when that was the end."""
        match line.split():
            case ["cut", survives, seed]:
                chance = random.Random(int(seed))
                for disk in self._disks.values():
                    disk.cut(survives, chance)
                return False
            case [("fail" | "work") as what, name]:
                self._disks[name].fails_writes = what == "fail"
            case _:
                raise ValueError(f"no such order: {line!r}")
        return True


def _reply(writer: asyncio.StreamWriter, option: int, kind: int, payload: bytes = b"") -> None:
    writer.write(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(payload)) + payload)


async def _answer_one(disk: Disk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    header = await reader.readexactly(28)
    _, flags, command, cookie, offset, length = struct.unpack(">IHHQQI", header)
    payload = await reader.readexactly(length) if command == WRITE else b""
    error, data = 0, b""
    if command == DISCONNECT:
        return False
    if command == READ:
        data = disk.read(offset, length)
    elif command == WRITE and disk.fails_writes:
        error = EIO
    elif command == WRITE:
        disk.write(offset, payload)
    elif command != FLUSH:
        error = EINVAL
    if command == FLUSH or flags & FUA:
        disk.flush()
    writer.write(struct.pack(">IIQ", 0x67446698, error, cookie) + data)
    await writer.drain()
    return True


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("disks", nargs="+")
    parser.add_argument("--ignore-flushes", default="")
    options = parser.parse_args()
    files = dict(each.split("=", 1) for each in options.disks)
    supply = Supply(
        {
            name: Disk(Path(file), ignores_flushes=name == options.ignore_flushes)
            for name, file in files.items()
        }
    )
    server = await asyncio.start_unix_server(supply.serve, options.socket, limit=1 << 22)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    print("ready", flush=True)
    async with server:
        while line := (await orders.readline()).decode():
            goes_on = supply.obey(line)
            print("done", flush=True)
            if not goes_on:
                os._exit(0)  # nobody gets another answer


if __name__ == "__main__":
    asyncio.run(main())
