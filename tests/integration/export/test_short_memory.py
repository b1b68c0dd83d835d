"""When the memory for payloads runs short: who waits, who does not, and who gives way."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.export.limits import RECEIVE_BYTES, RESERVE_BYTES, Limits
from shared.nbd.constants import Command
from shared.nbd.requests import pack_request
from tests.integration.export.harness import MIB, RawClient, Serving, serving
from tests.integration.export.memory_volume import MemoryVolume

NEVER_S = 3600.0
HOARDERS = 8


@contextlib.asynccontextmanager
async def short(
    folder: Path, sweep_seconds: float, *, alignment: int = 1, hoarders: int = HOARDERS
) -> AsyncIterator[tuple[Serving, MemoryVolume, list[RawClient]]]:
    """Clients that announced a payload and sent a little of it hold every byte of the pool."""
    volume = MemoryVolume(16 * MIB, alignment)
    limits = Limits(connections=HOARDERS + 2, sweep_seconds=sweep_seconds)
    pool = BufferPool(HOARDERS * MIB + RECEIVE_BYTES)  # a payload's header comes into a receive buffer
    async with serving(folder, {"v": volume}, limits=limits, pool=pool) as running:
        clients = [await running.connect() for _ in range(hoarders)]
        for client in clients:
            await client.send(pack_request(Command.WRITE, 0, 1, 0, MIB) + b"x" * 1000)
        await until(lambda: pool.in_use_bytes == hoarders * MIB)
        yield running, volume, clients


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@pytest.mark.parametrize("alignment", [1, 4096])
async def test_small_requests_do_not_wait_for_what_others_hold(short_path: Path, alignment: int) -> None:
    """Not even when there are many at a time: then some wait for those before them."""
    async with short(short_path, NEVER_S, alignment=alignment) as (running, _, _):
        waiting = await running.connect()
        await waiting.send(pack_request(Command.WRITE, 0, 1, 0, MIB))
        await until(lambda: running.pool.is_contended)
        client = await running.connect()
        async with asyncio.timeout(10):
            for number in range(20):
                payload = os.urandom(4096)
                assert await client.write(number * 4096, payload) == 0
                assert await client.read(number * 4096, 4096) == payload
            content = os.urandom(200 * 4096)
            cookies = [
                await client.request(Command.WRITE, at, 4096, content[at : at + 4096])
                for at in range(0, len(content), 4096)
            ]
            assert [await client.reply(cookie) for cookie in cookies] == [0] * 200
            cookies = [await client.request(Command.READ, at, 4096) for at in range(0, len(content), 4096)]
            assert [await client.reply(cookie) for cookie in cookies] == [0] * 200
            assert b"".join(client.take(cookie) for cookie in cookies) == content


async def test_large_request_waits_for_clients_that_give_way(short_path: Path) -> None:
    async with short(short_path, 0.2) as (running, volume, hoarders):
        client = await running.connect()
        async with asyncio.timeout(10):
            assert await client.write(MIB, os.urandom(MIB)) == 0
            assert await hoarders[0].is_hung_up_on()
    assert [request.offset for request in volume.seen] == [MIB]


async def test_payload_that_trickles_in_gives_way(short_path: Path) -> None:
    """A byte now and then is no progress that would free memory in time."""
    async with short(short_path, 0.2) as (running, volume, hoarders):
        client = await running.connect()

        async def trickle(hoarder: RawClient) -> None:
            try:
                while True:
                    await hoarder.send(b"x")
                    await asyncio.sleep(0.01)
            except (BrokenPipeError, ConnectionResetError):
                return

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            trickling = [tasks.create_task(trickle(hoarder)) for hoarder in hoarders]
            assert await client.write(MIB, os.urandom(MIB)) == 0
            for task in trickling:
                task.cancel()
    assert [request.offset for request in volume.seen] == [MIB]


async def test_replies_that_trickle_out_give_way(short_path: Path) -> None:
    limits = Limits(connections=4, sweep_seconds=1.0)
    pool = BufferPool(8 * MIB)
    async with serving(short_path, {"v": MemoryVolume(16 * MIB)}, limits=limits, pool=pool) as running:
        readers = [await running.connect() for _ in range(2)]
        for reader in readers:
            await reader.send(b"".join(pack_request(Command.READ, 0, at, 0, 2 * MIB) for at in range(20)))
        await until(lambda: pool.is_contended)
        client = await running.connect()
        loop = asyncio.get_running_loop()

        async def trickle(reader: RawClient) -> None:
            with contextlib.suppress(ConnectionResetError):
                for _ in range(1000):
                    await loop.sock_recv(reader.socket, 4096)
                    await asyncio.sleep(0.02)

        async with asyncio.timeout(6), asyncio.TaskGroup() as tasks:
            trickling = [tasks.create_task(trickle(reader)) for reader in readers]
            assert await client.write(0, os.urandom(MIB)) == 0
            for task in trickling:
                task.cancel()


async def test_client_that_moves_enough_stays(short_path: Path) -> None:
    async with short(short_path, 1.0, hoarders=HOARDERS - 1) as (running, volume, _):
        slow = await running.connect()
        await slow.send(pack_request(Command.WRITE, 0, 1, 8 * MIB, MIB))
        slow._parser.expect(Command.WRITE, 1, 8 * MIB, MIB)
        client = await running.connect()
        payload = os.urandom(MIB)

        async def send_slowly() -> int:
            for at in range(0, MIB, MIB // 16):
                await slow.send(payload[at : at + MIB // 16])
                await asyncio.sleep(0.05)
            return await slow.reply(1)

        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send_slowly())
            assert await client.write(0, os.urandom(MIB)) == 0
        assert sending.result() == 0
    assert volume.data[8 * MIB : 9 * MIB] == payload


async def test_client_that_leaves_while_it_waits_for_memory_is_forgotten(short_path: Path) -> None:
    volume = MemoryVolume(4 * MIB)
    pool = BufferPool(4 * MIB)
    async with serving(short_path, {"v": volume}, limits=Limits(connections=2), pool=pool) as running:
        everything = [pool.take(MIB) for _ in range(4)]
        clients = [await running.connect() for _ in range(2)]
        for client in clients:
            await client.send(pack_request(Command.WRITE, 0, 1, 0, 2 * RESERVE_BYTES))
        await until(lambda: pool.is_contended)
        async with asyncio.timeout(5):
            await running.server.disconnect("v")
        for buffer in everything:
            buffer.release()
        assert [pool.is_contended, pool.in_use_bytes] == [False, 0]
        client = await running.connect()
        assert await client.write(0, b"y" * 100) == 0
