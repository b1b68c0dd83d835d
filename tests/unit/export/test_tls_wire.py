"""Replies and requests on their way through TLS: what counts as sent, what is seen to be there, and what is bounded."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.export.tls import SCRATCH_BYTES, TlsSession
from services.write_cloning.export.tls_wire import (
    CHUNK_BYTES,
    RECORD_BYTES,
    UNASKED_BYTES_MAX,
    TlsWire,
    records,
)
from services.write_cloning.outbox import Outbox
from tests.support.certificates import Pki


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(Path(tmp_path_factory.mktemp("pki")))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


class Client:
    """The other side, in memory but for its socket."""

    def __init__(self, connection: socket.socket, pki: Pki) -> None:
        self.connection = connection
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki.ca)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def received(self) -> bytes:
        """Everything that is in the socket, decrypted."""
        try:
            while data := self.connection.recv(1 << 20):
                self.incoming.write(data)
        except BlockingIOError:
            pass
        found = b""
        try:
            while data := self.tls.read(1 << 20):
                found += data
        except ssl.SSLWantReadError:
            pass
        return found

    def encrypted(self, data: bytes) -> bytes:
        left = memoryview(data)
        while left:
            left = left[self.tls.write(left) :]
        return self.outgoing.read()


def connected(pair: tuple[socket.socket, socket.socket], pki: Pki) -> tuple[TlsWire, Client]:
    """Both sides, with the handshake done."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.certificate, pki.key)
    context.num_tickets = 0
    client = Client(pair[1], pki)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    for side in (client.tls, tls) * 2:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
        incoming.write(client.outgoing.read())
        client.incoming.write(outgoing.read())
    session = TlsSession(tls, incoming, outgoing, memoryview(bytearray(SCRATCH_BYTES)))
    return TlsWire(asyncio.get_running_loop(), pair[0], session), client


# -------------------------------------------------------------------------------------------------------------- records


@given(st.lists(st.binary(max_size=40_000), max_size=12), st.integers(1, 200_000))
def test_records_are_the_pieces_in_order_and_full_but_for_the_last(pieces: list[bytes], most: int) -> None:
    found = [bytes(each) for each in records(pieces, most)]
    assert b"".join(found) == b"".join(pieces)[:most]
    assert all(0 < len(each) <= RECORD_BYTES for each in found)
    # A large piece is not copied to fill up the record before it, so that one may be short where a small piece ended.
    assert len(found) <= 2 + 2 * (sum(map(len, pieces)) // RECORD_BYTES) + 1


def test_small_pieces_share_a_record() -> None:
    assert [bytes(each) for each in records([b"one", b"two", b"three"], CHUNK_BYTES)] == [b"onetwothree"]


# -------------------------------------------------------------------------------------------------------------- sending


async def test_sent_is_what_the_socket_has_taken_whole(
    pair: tuple[socket.socket, socket.socket], pki: Pki
) -> None:
    """A chunk that is in the socket in part counts as not sent, and the same bytes are not encrypted again."""
    wire, client = connected(pair, pki)
    stream = os.urandom(40 * CHUNK_BYTES)
    sent, told_to_wait, received = 0, 0, b""
    while sent < len(stream):
        try:
            sent += wire.send(memoryview(stream)[sent:])
        except BlockingIOError:
            told_to_wait += 1
            received += client.received()
            assert sent <= len(received) <= sent + CHUNK_BYTES
    received += client.received()
    assert received == stream
    assert told_to_wait > 1


async def test_buffers_come_back_when_their_last_byte_is_in_the_socket(
    pair: tuple[socket.socket, socket.socket], pki: Pki
) -> None:
    pool = BufferPool()
    wire, client = connected(pair, pki)
    sends: list[int] = []
    broken: list[OSError] = []
    outbox = Outbox(asyncio.get_running_loop(), wire, lambda: sends.append(1), broken.append)
    data = os.urandom(1 << 20)
    for _ in range(4):
        buffer = pool.take(1 << 20)
        buffer.view[:] = data
        outbox.push_data(b"header", buffer, 0, 1 << 20)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    was_blocked = outbox.is_blocked
    assert pool.in_use_bytes == 4 << 20
    received, in_use = b"", []
    async with asyncio.timeout(10):
        while outbox.unsent_bytes:
            received += client.received()
            in_use.append(pool.in_use_bytes)
            await asyncio.sleep(0)
    received += client.received()
    assert received == (b"header" + data) * 4
    assert {4 << 20, 2 << 20} <= set(in_use)
    assert pool.in_use_bytes == 0
    assert (was_blocked, outbox.is_blocked) == (True, False)
    assert broken == []


async def test_client_that_is_gone_is_noticed(pair: tuple[socket.socket, socket.socket], pki: Pki) -> None:
    wire, _ = connected(pair, pki)
    pair[1].close()
    with pytest.raises(OSError, match="Broken pipe"):
        wire.send(b"x")


# ------------------------------------------------------------------------------------------------------------ receiving


async def test_what_is_there_already_is_called_for_though_the_socket_has_nothing(
    pair: tuple[socket.socket, socket.socket], pki: Pki
) -> None:
    """Also after a pause, in which nobody was to be called."""
    wire, client = connected(pair, pki)
    stream = os.urandom(50_000)
    assert pair[1].send(client.encrypted(stream)) > len(stream)
    received, calls, view = b"", 0, memoryview(bytearray(1000))
    done = asyncio.Event()

    def read() -> None:
        nonlocal received, calls
        calls += 1
        received += view[: wire.recv_into(view)]
        if calls % 10 == 0:
            wire.stop_reading()
            asyncio.get_running_loop().call_later(0.001, wire.start_reading, read)
        if len(received) == len(stream):
            wire.stop_reading()
            done.set()

    wire.start_reading(read)
    async with asyncio.timeout(10):
        await done.wait()
    assert received == stream
    assert calls == len(stream) // 1000


async def test_a_part_of_a_record_is_waited_for(pair: tuple[socket.socket, socket.socket], pki: Pki) -> None:
    wire, client = connected(pair, pki)
    view = memoryview(bytearray(100))
    ciphertext = client.encrypted(b"hello")
    for at in range(len(ciphertext) - 1):
        pair[1].send(ciphertext[at : at + 1])
        with pytest.raises(BlockingIOError):
            wire.recv_into(view)
    pair[1].send(ciphertext[-1:])
    assert bytes(view[: wire.recv_into(view)]) == b"hello"


@pytest.mark.parametrize("says_so", [True, False])
async def test_end_comes_after_what_was_said_before_it(
    pair: tuple[socket.socket, socket.socket], pki: Pki, says_so: bool
) -> None:
    wire, client = connected(pair, pki)
    pair[1].send(client.encrypted(b"last words"))
    if says_so:
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        pair[1].send(client.outgoing.read())
    else:
        pair[1].shutdown(socket.SHUT_WR)
    said: list[bytes] = []
    ended = asyncio.Event()
    view = memoryview(bytearray(100))

    def read() -> None:
        said.append(bytes(view[: wire.recv_into(view)]))
        if not said[-1]:
            wire.stop_reading()
            ended.set()

    wire.start_reading(read)
    async with asyncio.timeout(10):
        await ended.wait()
    assert said == [b"last words", b""]
    assert wire.send(b"all the same") == 12  # who sends no more may still be told


class Talkative:
    """A session that has more to say with everything that comes, as a client can make one by asking for new keys."""

    def __init__(self, outgoing: ssl.MemoryBIO, words: int) -> None:
        self._outgoing = outgoing
        self._words = words

    def pending(self) -> int:
        return 0

    def read(self, length: int, into: memoryview) -> int:
        self._outgoing.write(bytes(self._words))
        into[:1] = b"x"
        return 1


async def test_what_tls_says_unasked_is_bounded(pair: tuple[socket.socket, socket.socket]) -> None:
    """Cause: a client asks for new keys with every byte, and takes no answer. Failing: memory grows for as long as it likes."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talkative = Talkative(outgoing, words=10_000)
    session = TlsSession(talkative, incoming, outgoing, memoryview(bytearray(SCRATCH_BYTES)))  # type: ignore[arg-type]
    wire = TlsWire(asyncio.get_running_loop(), pair[0], session)
    incoming.write(b"something")
    calls = [partial(wire.recv_into, memoryview(bytearray(1)))] * 1000
    with pytest.raises(ConnectionAbortedError):
        _call(calls)
    assert outgoing.pending <= UNASKED_BYTES_MAX + 10_000


def _call(calls: Sequence[Callable[[], int]]) -> None:
    for call in calls:
        call()


async def test_good_bye_is_said_as_far_as_the_socket_takes_it(
    pair: tuple[socket.socket, socket.socket], pki: Pki
) -> None:
    wire, client = connected(pair, pki)
    wire.close()
    assert client.received() == b""
    client.tls.unwrap()  # does not wait, because it was said
    assert pair[0].fileno() == -1
