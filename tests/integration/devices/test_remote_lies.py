"""A server that breaks the protocol, or hangs up in the middle: the connection is broken for good, and nobody is told a lie."""

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.errors import DeviceUnusableError, NotADeviceError
from services.write_cloning.devices.remote_connection import RemoteConnection
from services.write_cloning.devices.remote_opening import RemoteExports
from shared.nbd.constants import (
    REQUEST_BYTES,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkType,
    Command,
    TransmissionFlag,
)
from tests.integration.devices.servers import scripted
from tests.integration.devices.tools import MIB, Answer, Driver

FLAGS = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH
SIMPLE = struct.Struct(">IIQ")
CHUNK = struct.Struct(">IHHQI")

Reply = Callable[[int], bytes]  # by the request's cookie


def _chunk(kind: int, cookie: int, payload: bytes) -> bytes:
    return CHUNK.pack(STRUCTURED_REPLY_MAGIC, 1, kind, cookie, len(payload)) + payload


LIES: dict[str, Reply] = {
    "another cookie": lambda cookie: SIMPLE.pack(SIMPLE_REPLY_MAGIC, 0, cookie + 1) + bytes(512),
    "garbage": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "content that was not asked for": lambda cookie: _chunk(
        ChunkType.OFFSET_DATA, cookie, struct.pack(">Q", 4096) + bytes(512)
    ),
    "a hole beyond the request": lambda cookie: _chunk(
        ChunkType.OFFSET_HOLE, cookie, struct.pack(">QI", 0, 1024)
    ),
    "success without all content": lambda cookie: _chunk(
        ChunkType.OFFSET_DATA, cookie, struct.pack(">Q", 0) + bytes(100)
    ),
    "a chunk without end": lambda cookie: CHUNK.pack(
        STRUCTURED_REPLY_MAGIC, 1, ChunkType.ERROR, cookie, 0xFFFFFFFF
    ),
    "the status of a range that was not asked for": lambda cookie: _chunk(
        ChunkType.BLOCK_STATUS, cookie, struct.pack(">III", 1, 512, 0)
    ),
}


def answering(reply: Reply, seen: list[bytes]) -> Callable[..., Awaitable[None]]:
    """A script that answers the first request, and hears what comes after."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = await reader.readexactly(REQUEST_BYTES)
        writer.write(reply(int.from_bytes(header[8:16])))
        seen.append(await reader.read())

    return script


@pytest.fixture
def exports() -> RemoteExports:
    return RemoteExports(AllowedPaths(["nbd+unix:///**"]))


@pytest.mark.parametrize("lie", LIES)
async def test_lie_breaks_the_connection_for_good(
    exports: RemoteExports, folder: Path, pool: BufferPool, lie: str
) -> None:
    seen: list[bytes] = []
    async with scripted(folder, answering(LIES[lie], seen), size_bytes=MIB, flags=FLAGS) as uri:
        device = await exports.open(uri)
        driver = Driver(device, pool)
        assert (await driver.try_read(0, 512))[0] == errno.EPROTO
        assert device.is_broken
        assert await driver.write(0, bytes(512)) == errno.EPROTO
        assert device.outstanding == 0, "a read cannot land later"
        await device.close()
    assert seen == [b""], "something was sent over a connection that is broken"


async def test_server_that_hangs_up_in_mid_reply_has_answered_nothing(
    exports: RemoteExports, folder: Path, pool: BufferPool
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = await reader.readexactly(REQUEST_BYTES)
        writer.write(SIMPLE.pack(SIMPLE_REPLY_MAGIC, 0, int.from_bytes(header[8:16])) + b"x" * 100)

    async with scripted(folder, script, size_bytes=MIB, flags=FLAGS) as uri:
        device = await exports.open(uri)
        assert (await Driver(device, pool).try_read(0, 512))[0] == errno.ECONNRESET
        await device.close()


async def test_server_that_dies_with_requests_unread_is_noticed_though_its_last_reply_comes_first(
    pool: BufferPool,
) -> None:
    """Its end is an error of the socket then, behind content that can still be read; the loop tells of both only once."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = RemoteConnection("nbd://scripted", ours, b"")
    buffer, answers = pool.take(4096), (Answer(), Answer())
    for answer in answers:
        connection.ask(Command.READ, 0, 0, 512, buffer, 0, answer.done, None)
    await asyncio.sleep(0)
    header = theirs.recv(REQUEST_BYTES)
    theirs.send(SIMPLE.pack(SIMPLE_REPLY_MAGIC, 0, int.from_bytes(header[8:16])) + bytes(512))
    theirs.close()
    assert await answers[0].error() == 0
    assert await answers[1].error() == errno.ECONNRESET
    buffer.release()


async def test_server_that_never_reads_is_sent_no_more_than_the_socket_holds_and_nothing_is_copied(
    exports: RemoteExports, folder: Path, pool: BufferPool
) -> None:
    never = asyncio.Event()

    async def script(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await never.wait()

    async with scripted(folder, script, size_bytes=64 * MIB, flags=FLAGS) as uri:
        device = await exports.open(uri)
        answers, buffers = [], [pool.take(MIB) for _ in range(16)]
        for number, buffer in enumerate(buffers):
            answers.append(answer := Answer())
            device.write(number * MIB, buffer, 0, MIB, answer.done, None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not any(answer.is_there for answer in answers)
        assert device.outstanding == 16
        device.vouch_gone()
        assert {await answer.error() for answer in answers} == {errno.ECONNABORTED}
        for buffer in buffers:
            assert buffer.references == 1, "the connection still holds it"
            buffer.release()
        never.set()


async def test_error_reply_before_the_whole_payload_was_sent_keeps_the_buffer_until_it_is(
    exports: RemoteExports, folder: Path, pool: BufferPool
) -> None:
    length = 16 * MIB
    heard: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = await reader.readexactly(REQUEST_BYTES)
        writer.write(SIMPLE.pack(SIMPLE_REPLY_MAGIC, errno.ENOSPC, int.from_bytes(header[8:16])))
        heard.append(await reader.readexactly(length))

    async with scripted(folder, script, size_bytes=64 * MIB, flags=FLAGS) as uri:
        device = await exports.open(uri)
        buffer, answer = pool.take(length), Answer()
        buffer.view[:length] = b"w" * length
        device.write(0, buffer, 0, length, answer.done, None)
        assert await answer.error() == errno.ENOSPC
        buffer.release()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while not heard:  # noqa: ASYNC110 - the server tells nobody
                    await asyncio.sleep(0.01)
        assert heard == [b"w" * length]
        device.vouch_gone()


@pytest.mark.parametrize(
    ("greeting", "error"),
    [(b"SSH-2.0-OpenSSH_9.2\r\n", NotADeviceError), (b"", DeviceUnusableError)],
    ids=["another protocol", "hangs up"],
)
async def test_what_is_no_nbd_server_is_refused(
    exports: RemoteExports, folder: Path, greeting: bytes, error: type[Exception]
) -> None:
    path = folder / "other.sock"

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(serve, path):
        with pytest.raises(error):
            await exports.open(f"nbd+unix:///?socket={path}")
