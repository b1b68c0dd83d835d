"""Reads that a volume serves without waiting: same replies, same bounds, and no memory kept."""

import asyncio
import os
from pathlib import Path

import pytest

from services.write_cloning.export.limits import AT_ONCE_BYTES, TRAY_BYTES, Limits
from shared.nbd.constants import Command
from shared.nbd.requests import pack_request
from tests.integration.export.harness import MIB, run, serving
from tests.integration.export.memory_volume import MemoryVolume


@pytest.fixture
def volume() -> MemoryVolume:
    volume = MemoryVolume(4 * MIB)
    volume.data[:] = os.urandom(4 * MIB)
    volume.has_all_at_hand = True
    return volume


async def test_batch_of_reads_that_fills_more_than_one_tray(short_path: Path, volume: MemoryVolume) -> None:
    lengths = [1, 511, 4096, AT_ONCE_BYTES] * 20
    assert sum(lengths) > 2 * TRAY_BYTES
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        offsets = [3 * index * 4096 + index for index in range(len(lengths))]
        cookies = [
            await client.request(Command.READ, offset, length)
            for offset, length in zip(offsets, lengths, strict=True)
        ]
        for cookie, offset, length in zip(cookies, offsets, lengths, strict=True):
            assert await client.reply(cookie) == 0
            assert client.take(cookie) == volume.data[offset : offset + length]
    assert volume.served_at_once == len(lengths)
    assert not volume.seen


async def test_longer_reads_are_submitted(short_path: Path, volume: MemoryVolume) -> None:
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        assert await client.read(5, AT_ONCE_BYTES + 1) == volume.data[5 : 6 + AT_ONCE_BYTES]
    assert volume.served_at_once == 0


async def test_read_after_an_answered_write_sees_it(short_path: Path, volume: MemoryVolume) -> None:
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        for number in range(50):
            payload = bytes([number]) * 4096
            assert await client.write(8192, payload) == 0
            assert await client.read(8192, 4096) == payload
    assert volume.served_at_once == 50


async def test_simple_replies(short_path: Path, volume: MemoryVolume) -> None:
    """A client that did not ask for structured replies."""
    async with serving(short_path, {"v": volume}) as running:
        script = (
            f"import nbd; h = nbd.NBD(); h.set_request_structured_replies(False); h.connect_uri({running.uri()!r}); "
            "assert not h.get_structured_replies_negotiated(); "
            "print(b''.join(h.pread(4096, at) for at in range(0, 40960, 4096)).hex())"
        )
        output = await run("/usr/bin/python3", "-c", script)
    assert bytes.fromhex(output) == volume.data[:40960]
    assert volume.served_at_once == 10


async def test_client_that_never_reads_is_bounded(short_path: Path, volume: MemoryVolume) -> None:
    limits = Limits(payload_bytes_per_connection=MIB, requests_per_connection=64)
    async with serving(short_path, {"v": volume}, limits=limits) as running:
        client = await running.connect()
        flood = b"".join(pack_request(Command.READ, 0, cookie, 0, 4096) for cookie in range(50_000))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.send(flood)
        assert 64 <= volume.served_at_once < 2000
        assert running.pool.in_use_bytes <= 2 * MIB
        other = await running.connect()
        assert await other.read(0, 4096) == volume.data[:4096]


async def test_idle_connection_holds_no_memory(short_path: Path, volume: MemoryVolume) -> None:
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        assert await client.read(0, 4096) == volume.data[:4096]
        assert await client.read(4096, 4096) == volume.data[4096:8192]
        assert running.pool.in_use_bytes == 0


async def test_what_is_not_at_hand_takes_the_ordinary_way(short_path: Path, volume: MemoryVolume) -> None:
    volume.has_all_at_hand = False
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        assert await client.read(100, 4096) == volume.data[100:4196]
    assert len(volume.seen) == 1
