"""Replies on their way out: order, partial sends, and when buffers come back."""

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.outbox import Outbox


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


class Watch:
    """What an outbox tells its owner."""

    def __init__(self) -> None:
        self.sends = 0
        self.broken: list[OSError] = []

    def after_send(self) -> None:
        self.sends += 1


def make(ours: socket.socket) -> tuple[Outbox, Watch]:
    watch = Watch()
    return Outbox(asyncio.get_running_loop(), ours, watch.after_send, watch.broken.append), watch


async def receive(theirs: socket.socket, length: int) -> bytes:
    received = b""
    async with asyncio.timeout(10):
        while len(received) < length:
            received += await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
    return received


async def test_replies_of_one_iteration_leave_in_one_send(pair: tuple[socket.socket, socket.socket]) -> None:
    outbox, watch = make(pair[0])
    for number in range(100):
        outbox.push(b"%03d" % number)
    assert await receive(pair[1], 300) == b"".join(b"%03d" % number for number in range(100))
    assert watch.sends == 1
    assert outbox.unsent_bytes == 0


async def test_more_pieces_than_one_send_takes(pair: tuple[socket.socket, socket.socket]) -> None:
    pool = BufferPool()
    outbox, _ = make(pair[0])
    expected = b""
    for _ in range(1500):
        buffer = pool.take(4096)
        buffer.view[:10] = payload = os.urandom(10)
        outbox.push_data(b"header", buffer, 2, 8)
        expected += b"header" + payload[2:]
    assert await receive(pair[1], len(expected)) == expected
    assert pool.in_use_bytes == 0


class Watched(socket.socket):
    """Notes how much it is asked to send at once."""

    longest = 0

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        self.longest = max(self.longest, len(data))
        return super().send(data, flags)


async def test_headers_are_joined_only_so_many_at_once(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog is not copied as a whole for every attempt to send some of it."""
    monkeypatch.setattr("services.write_cloning.outbox.MAX_PIECES_PER_SEND", 10)
    with Watched(fileno=pair[0].detach()) as ours:
        ours.setblocking(False)
        outbox, _ = make(ours)
        pieces = [bytes([number]) * 1000 for number in range(100)]
        for piece in pieces:
            outbox.push(piece)
        assert await receive(pair[1], 100_000) == b"".join(pieces)
        assert ours.longest == 10_000


async def test_full_socket_is_waited_for_and_buffers_come_back_one_by_one(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pool = BufferPool()
    outbox, watch = make(pair[0])
    data = os.urandom(1 << 20)
    for _ in range(4):
        buffer = pool.take(1 << 20)
        buffer.view[:] = data
        outbox.push_data(b"header", buffer, 0, 1 << 20)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    was_blocked = outbox.is_blocked
    assert 0 < outbox.unsent_bytes < 4 * (6 + (1 << 20))
    first = await receive(pair[1], 2 << 20)
    assert 0 < pool.in_use_bytes < 4 << 20
    rest = await receive(pair[1], 4 * (6 + (1 << 20)) - len(first))
    assert first + rest == (b"header" + data) * 4
    assert pool.in_use_bytes == 0
    assert (was_blocked, outbox.is_blocked) == (True, False)
    assert watch.sends > 1


async def test_broken_connection_is_told_once_and_gives_buffers_back(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pool = BufferPool()
    outbox, watch = make(pair[0])
    pair[1].close()
    outbox.push_data(b"header", pool.take(4096), 0, 4096)
    await asyncio.sleep(0.01)
    outbox.push(b"more")
    outbox.push_data(b"header", pool.take(4096), 0, 4096)
    await asyncio.sleep(0.01)
    assert [type(error) for error in watch.broken] == [BrokenPipeError]
    assert pool.in_use_bytes == 0
    assert outbox.unsent_bytes == 0


async def test_what_is_gathered_leaves_with_the_rest_and_is_asked_for_whatever_the_socket_does(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Whoever waits to be asked counts requests as under way: a client that takes nothing, or has gone, must not keep them so."""
    watch = Watch()
    asked: list[bool] = []
    loop = asyncio.get_running_loop()

    def gather() -> None:
        asked.append(outbox.is_blocked)
        outbox.push_all([b"gathered", b"together"])

    outbox = Outbox(loop, pair[0], watch.after_send, watch.broken.append, gather)
    outbox.push(b"first")
    assert await receive(pair[1], 21) == b"firstgatheredtogether"
    assert (watch.sends, asked) == (1, [False])
    outbox.push(bytes(4 << 20))
    await asyncio.sleep(0.01)
    assert outbox.is_blocked
    outbox.schedule()
    await asyncio.sleep(0.01)
    assert asked[-1]
    outbox.drop()
    outbox.schedule()
    await asyncio.sleep(0.01)
    assert len(asked) == 4
    assert outbox.unsent_bytes == 0
