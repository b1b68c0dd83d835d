"""Clients that vanish, stall, flood, or misbehave in other ways; and what the server says of them."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.export.errors import ExportNameError
from services.write_cloning.export.limits import Limits
from services.write_cloning.volume.requests import Kind
from shared.nbd.constants import Command, CommandFlag, NbdError, Option
from shared.nbd.errors import NegotiationFailedError
from shared.nbd.requests import pack_request
from tests.integration.export.harness import MIB, RawClient, Serving, serving, until
from tests.integration.export.memory_volume import MemoryVolume


async def gone(running: Serving, *, left: int = 0) -> None:
    """Wait until an export has no more than this number of clients."""
    for _ in range(1000):
        if len(running.server.clients("v")) <= left:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@pytest.mark.parametrize("length", [16 << 10, 64 << 10, 1 * MIB])
@pytest.mark.parametrize("sent", [0, 1, 1000])
@pytest.mark.parametrize("alignment", [1, 4096])
async def test_nothing_of_a_payload_that_breaks_off_is_applied(
    short_path: Path, length: int, sent: int, alignment: int
) -> None:
    volume = MemoryVolume(4 * MIB, alignment)
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        await client.send(pack_request(Command.WRITE, 0, 1, 0, length) + b"x" * sent)
        other = await running.connect()
        assert await other.write(2 * MIB, b"y" * 4096) == 0
        client.close()
        other.close()
        await gone(running)
    assert [request.offset for request in volume.seen] == [2 * MIB]
    assert volume.data[:length] == bytes(length)


@pytest.mark.parametrize("says_last", [b"", b"x", pack_request(Command.FLUSH, 0, 2, 0, 0)])
async def test_client_that_vanishes_without_having_read_its_replies_is_noticed(
    short_path: Path, says_last: bytes
) -> None:
    """Cause: uvloop calls the reader once for a reset, and no more; where data came along, the reset was never seen.

    Failing: the client stays connected for ever. Passing: it is gone at once.
    """
    async with serving(short_path, {"v": MemoryVolume(4 * MIB)}) as running:
        client = await running.connect()
        await client.request(Command.READ, 0, 4096)
        replied = asyncio.Event()
        asyncio.get_running_loop().add_reader(client.socket, replied.set)
        await until(replied)  # and the reply is left where it is
        asyncio.get_running_loop().remove_reader(client.socket)
        if says_last:
            assert client.socket.send(says_last) == len(says_last)
        client.close()
        await gone(running)
        assert running.pool.in_use_bytes == 0


async def test_requests_of_a_client_that_vanished_are_finished(short_path: Path) -> None:
    volume = MemoryVolume(4 * MIB)
    volume.is_held = True
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        await client.request(Command.WRITE, 0, 4096, b"x" * 4096)
        await client.request(Command.READ, 0, 4096)
        await until(volume.arrived)
        client.close()
        await asyncio.sleep(0.05)
        assert len(running.server.clients("v")) == 1  # still there: its write is under way
        volume.let_go()
        await gone(running)
        assert running.pool.in_use_bytes == 0
    assert volume.data[:4096] == b"x" * 4096


async def test_disconnect_command_is_obeyed_after_what_came_before(short_path: Path) -> None:
    volume = MemoryVolume(4 * MIB)
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        cookie = await client.request(Command.WRITE, 0, 4096, b"x" * 4096)
        await client.send(pack_request(Command.DISC, 0, 9, 0, 0))
        assert await client.reply(cookie) == 0
        assert await client.is_hung_up_on()
        client.close()
        await gone(running)


async def test_client_that_sends_no_more_still_gets_its_replies(short_path: Path) -> None:
    volume = MemoryVolume(4 * MIB)
    volume.is_held = True
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        cookie = await client.request(Command.READ, 0, 2 * MIB)
        client.socket.shutdown(socket.SHUT_WR)
        await until(volume.arrived)
        volume.let_go()
        assert await client.reply(cookie) == 0
        assert await client.is_hung_up_on()
        client.close()


@pytest.mark.parametrize("length", [4096, 256 << 10])
async def test_client_that_never_reads_is_bounded(short_path: Path, length: int) -> None:
    """Its requests stop being taken; others are served; when it goes, all is given back."""
    volume = MemoryVolume(4 * MIB)
    limits = Limits(payload_bytes_per_connection=4 * MIB, requests_per_connection=64)
    async with serving(short_path, {"v": volume}, limits=limits) as running:
        client = await running.connect()
        flood = b"".join(pack_request(Command.READ, 0, cookie, 0, length) for cookie in range(20_000))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.send(flood)
        other = await running.connect()
        taken = -1
        while (
            len(volume.seen) != taken + 1
        ):  # what the client may have is soon taken; then there is only the other's
            taken = len(volume.seen)
            assert taken < 2000
            assert await other.read(0, 4096) == bytes(4096)
        assert running.pool.in_use_bytes <= 6 * MIB
        client.close()
        other.close()
        await gone(running)
        assert running.pool.in_use_bytes == 0


async def test_client_that_never_reads_short_replies_is_bounded(short_path: Path) -> None:
    volume = MemoryVolume(4 * MIB)
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        flood = b"".join(pack_request(Command.TRIM, 0, cookie, 0, 4096) for cookie in range(100_000))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.send(flood)
        assert len(volume.seen) < 50_000
        client.close()
        await gone(running)


ANSWERED_AT_ONCE = {
    "unknown command": (struct.pack(">IHHQQI", 0x25609513, 0, 99, 7, 0, 4096), NbdError.EINVAL),
    "read of nothing": (pack_request(Command.READ, 0, 7, 0, 0), 0),
    "read beyond the end": (pack_request(Command.READ, 0, 7, 1 << 40, 4096), NbdError.EINVAL),
    "write beyond the end": (pack_request(Command.WRITE, 0, 7, 1 << 40, 1) + b"x", NbdError.ENOSPC),
}


@pytest.mark.parametrize("kind", ANSWERED_AT_ONCE)
async def test_replies_to_what_no_volume_sees_are_bounded_too(short_path: Path, kind: str) -> None:
    """A client that does not read them is read from no more; once it does, it gets every one."""
    request, error = ANSWERED_AT_ONCE[kind]
    count = 60_000
    async with serving(short_path, {"v": MemoryVolume(MIB)}) as running:
        client = await running.connect()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(client.send(request * count))
            _, unsent = await asyncio.wait({sending}, timeout=0.5)
            assert unsent, "everything was read although no reply was taken"
            loop, received, reply_bytes = asyncio.get_running_loop(), b"", 0
            while not reply_bytes or len(received) < count * reply_bytes:
                received += await asyncio.wait_for(loop.sock_recv(client.socket, MIB), 10)
                reply_bytes = 20 + int.from_bytes(received[16:20])
        assert sending.done()
        replies = [received[at : at + reply_bytes] for at in range(0, len(received), reply_bytes)]
        assert len(replies) == count
        assert set(replies) == {replies[0]}
        assert int.from_bytes(replies[0][20:24]) == error
        assert await client.write(0, b"still served") == 0


@pytest.mark.parametrize("alignment", [1, 512])
async def test_window_bounds_what_is_under_way(short_path: Path, alignment: int) -> None:
    volume = MemoryVolume(4 * MIB, alignment)
    volume.is_held = True
    limits = Limits(requests_per_connection=8)
    async with serving(short_path, {"v": volume}, limits=limits) as running:
        client = await running.connect()
        payload = os.urandom(40 * 4096)
        cookies = [
            await client.request(Command.WRITE, at, 4096, payload[at : at + 4096])
            for at in range(0, 40 * 4096, 4096)
        ]
        await until(volume.arrived)
        await asyncio.sleep(0.05)
        assert volume.most_held == len(volume.held) == 8
        volume.let_go()
        assert [await client.reply(cookie) for cookie in cookies] == [0] * 40
        assert volume.data[: 40 * 4096] == payload
        client.close()


async def test_window_bounds_large_payloads(short_path: Path) -> None:
    volume = MemoryVolume(16 * MIB)
    volume.is_held = True
    limits = Limits(payload_bytes_per_connection=2 * MIB)
    async with serving(short_path, {"v": volume}, limits=limits) as running:
        client = await running.connect()
        payload = os.urandom(8 * MIB)

        async def flood() -> list[int]:
            pieces = [(at, payload[at : at + MIB]) for at in range(0, 8 * MIB, MIB)]
            return [await client.request(Command.WRITE, at, MIB, piece) for at, piece in pieces]

        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(flood())
            await until(volume.arrived)
            await asyncio.sleep(0.05)
            assert volume.most_held == 2
            volume.let_go()
        assert [await client.reply(cookie) for cookie in sending.result()] == [0] * 8
        assert volume.data[: 8 * MIB] == payload


@pytest.mark.parametrize("alignment", [1, 4096])
async def test_clients_take_turns_when_memory_is_short(short_path: Path, alignment: int) -> None:
    volume = MemoryVolume(4 * MIB, alignment)
    async with serving(
        short_path, {"v": volume}, limits=Limits(connections=16), pool=BufferPool(6 * MIB)
    ) as running:
        clients = [await running.connect() for _ in range(16)]

        async def work(client: RawClient, at: int) -> None:
            payload = os.urandom(256 << 10)
            for _ in range(8):
                cookies = [
                    await client.request(Command.WRITE, at, len(payload), payload),
                    await client.request(Command.READ, at, 128 << 10),
                    await client.request(Command.WRITE, at, 4096, payload[:4096]),
                ]
                assert [await client.reply(cookie) for cookie in cookies] == [0, 0, 0]
            assert await client.read(at, len(payload)) == payload
            client.close()

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for index, client in enumerate(clients):
                tasks.create_task(work(client, index * (256 << 10)))


async def test_idle_clients_hold_no_memory(short_path: Path) -> None:
    async with serving(short_path, {"v": MemoryVolume(4 * MIB)}) as running:
        clients = [await running.connect() for _ in range(100)]
        assert len(running.server.clients("v")) == 100
        await asyncio.gather(
            *(client.write(4096 * index, b"x" * 4096) for index, client in enumerate(clients))
        )
        assert [len(await client.read(0, 4096)) for client in clients] == [4096] * 100
        assert running.pool.in_use_bytes == 0
        for client in clients:
            client.close()
        await gone(running)


async def test_connections_are_bounded_for_each_export(short_path: Path) -> None:
    """One that is full says so in the handshake, and the clients of another do not notice."""
    volumes = {"v": MemoryVolume(MIB), "w": MemoryVolume(MIB)}
    async with serving(short_path, volumes, limits=Limits(connections=3)) as running:
        clients = [await running.connect() for _ in range(3)]
        with pytest.raises(NegotiationFailedError, match="3 clients are connected"):
            await running.connect()
        assert await (await running.connect("w")).write(0, b"not full") == 0
        clients.pop().close()
        await gone(running, left=2)
        clients.append(await running.connect())
        for client in clients:
            assert await client.write(0, b"served") == 0
            client.close()


async def test_clients_that_came_at_once_are_not_more_than_may(short_path: Path) -> None:
    async with serving(short_path, {"v": MemoryVolume(MIB)}, limits=Limits(connections=3)) as running:
        outcomes = await asyncio.gather(*(running.connect() for _ in range(20)), return_exceptions=True)
        await asyncio.sleep(0.05)
        assert len(running.server.clients("v")) == 3
        assert sum(isinstance(outcome, RawClient) for outcome in outcomes) >= 3


async def test_sockets_that_say_nothing_lock_out_nobody(short_path: Path) -> None:
    """The oldest gives way, so that their number is bounded; who is connected stays."""
    limits = Limits(handshakes=4, handshake_seconds=60)
    loop = asyncio.get_running_loop()
    async with serving(short_path, {"v": MemoryVolume(MIB)}, limits=limits) as running:
        first = await running.connect()
        silent = []
        for _ in range(6):
            silent.append(socket.socket(socket.AF_UNIX))
            silent[-1].setblocking(False)
            await loop.sock_connect(silent[-1], str(running.path))
            assert len(await loop.sock_recv(silent[-1], 100)) == 18
        for gave_way in silent[:2]:
            assert await asyncio.wait_for(loop.sock_recv(gave_way, 1), 5) == b""
        client = await asyncio.wait_for(running.connect(), 5)
        assert await asyncio.wait_for(loop.sock_recv(silent[2], 1), 5) == b""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(silent[3], 1), 0.1)
        assert await client.write(0, b"served") == await first.write(0, b"still there") == 0
        for connection in silent:
            connection.close()


async def test_clients_are_named(short_path: Path) -> None:
    async with serving(short_path, {"v": MemoryVolume(MIB)}) as running:
        client = await running.connect()
        (told,) = running.server.clients("v")
        assert told.name == f"this process (pid {os.getpid()}, uid {os.getuid()})"
        assert told.connected_at.endswith("Z")
        client.close()
        with pytest.raises(ExportNameError):
            running.server.clients("nosuch")


@pytest.mark.needs_root
def test_a_client_from_outside_of_the_container_is_named_without_a_number(short_path: Path) -> None:
    """Its process has no number in the container, and the kernel says 0."""
    within = (
        "import socket, sys; from services.write_cloning.export.client import name_peer;"
        "print(name_peer(socket.socket(fileno=int(sys.argv[1])).accept()[0]))"
    )
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(short_path / "s"))
        listening.listen()
        client.connect(str(short_path / "s"))
        done = subprocess.run(
            ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", within, str(listening.fileno())],
            pass_fds=(listening.fileno(),), capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    assert (done.stdout, done.returncode) == (f"a process (uid {os.getuid()})\n", 0), done.stderr


async def test_clients_of_an_export_are_disconnected_after_their_requests(short_path: Path) -> None:
    volume, bystander = MemoryVolume(MIB), MemoryVolume(MIB)
    volume.is_held = True
    async with serving(short_path, {"v": volume, "w": bystander}) as running:
        client, other = await running.connect("v"), await running.connect("w")
        cookie = await client.request(Command.WRITE, 0, 4096, b"x" * 4096)
        await until(volume.arrived)
        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(running.server.disconnect("v"))
            await asyncio.sleep(0.05)
            assert not leaving.done()
            volume.let_go()
        assert await client.reply(cookie) == 0
        assert await client.is_hung_up_on()
        assert running.server.clients("v") == []
        assert await other.write(0, b"still here") == 0
        (await running.connect("v")).close()
        client.close()
        other.close()


async def test_removed_export_is_gone(short_path: Path) -> None:
    async with serving(short_path, {"v": MemoryVolume(MIB), "w": MemoryVolume(MIB)}) as running:
        client = await running.connect("v")
        await running.server.remove("v")
        assert await client.is_hung_up_on()
        client.close()
        with pytest.raises(NegotiationFailedError):
            await running.connect("v")
        with pytest.raises(ExportNameError):
            await running.server.remove("v")
        running.server.add("v", MemoryVolume(2 * MIB), running.pool)
        with pytest.raises(ExportNameError):
            running.server.add("v", MemoryVolume(MIB), running.pool)
        client = await running.connect("v")
        assert client.agreement.size_bytes == 2 * MIB
        client.close()


async def test_volume_that_shuts_down_is_told_by_its_error_and_newcomers_are_refused(
    short_path: Path,
) -> None:
    volume = MemoryVolume(MIB)
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        running.server.begin_shutdown()
        volume.is_shut_down = True
        assert await client.write(0, b"x" * 100) == NbdError.ESHUTDOWN
        with pytest.raises(NegotiationFailedError, match="SHUTDOWN"):
            await running.connect()
        client.close()


async def test_leaving_the_server_waits_for_what_is_under_way(short_path: Path) -> None:
    volume = MemoryVolume(MIB)
    volume.is_held = True
    async with serving(short_path, {"v": volume}, keep_clients=True) as running:
        client = await running.connect()
        cookie = await client.request(Command.WRITE, 0, 4096, b"x" * 4096)
        await until(volume.arrived)
        asyncio.get_running_loop().call_later(0.1, volume.let_go)
    assert await client.reply(cookie) == 0
    assert await client.is_hung_up_on()
    client.close()
    assert not running.path.exists()


async def test_client_that_takes_no_last_reply_delays_the_end_only_so_long(short_path: Path) -> None:
    limits = Limits(linger_seconds=0.2)
    async with serving(short_path, {"v": MemoryVolume(8 * MIB)}, limits=limits, keep_clients=True) as running:
        client = await running.connect()
        await client.request(Command.READ, 0, 8 * MIB)
        async with asyncio.timeout(5):
            await running.server.close()
    client.close()


async def test_wrong_magic_ends_the_connection_after_what_came_before(short_path: Path) -> None:
    async with serving(short_path, {"v": MemoryVolume(MIB)}) as running:
        client = await running.connect()
        cookie = await client.request(Command.WRITE, 0, 4, b"good")
        await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await client.reply(cookie) == 0
        assert await client.is_hung_up_on()
        client.close()


@pytest.mark.parametrize("says", [b"GET / HTTP/1.1\r\n\r\n" * 4, struct.pack(">I", 0xFF), b""])
async def test_nonsense_in_the_handshake_ends_it(short_path: Path, says: bytes) -> None:
    limits = Limits(handshake_seconds=0.2)
    async with serving(short_path, {"v": MemoryVolume(MIB)}, limits=limits) as running:
        loop = asyncio.get_running_loop()
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        await loop.sock_connect(client, str(running.path))
        await loop.sock_sendall(client, says)
        async with asyncio.timeout(5):
            assert len(await loop.sock_recv(client, 4096)) == 18
            with contextlib.suppress(ConnectionResetError):
                assert await loop.sock_recv(client, 4096) == b""
        client.close()


async def test_requests_that_come_along_with_the_handshake_are_served(short_path: Path) -> None:
    volume = MemoryVolume(MIB)
    async with serving(short_path, {"v": volume}) as running:
        loop = asyncio.get_running_loop()
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        await loop.sock_connect(client, str(running.path))
        hello = struct.pack(">I8sII1s", 3, b"IHAVEOPT", Option.EXPORT_NAME, 1, b"v")
        requests = pack_request(Command.WRITE, 0, 1, 0, 5) + b"hello" + pack_request(Command.READ, 0, 2, 0, 5)
        await loop.sock_sendall(client, hello + requests)
        expected = struct.pack(">IIQ", 0x67446698, 0, 1) + struct.pack(">IIQ", 0x67446698, 0, 2)
        received = b""
        async with asyncio.timeout(5):
            while len(received) < 18 + 10 + 32 + 5:
                received += await loop.sock_recv(client, 4096)
        assert received[28:44] == expected[:16]
        client.close()


async def test_every_split_of_a_stream_is_served_alike(short_path: Path) -> None:
    volume = MemoryVolume(MIB)
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        payload = os.urandom(1000)
        stream = pack_request(Command.WRITE, CommandFlag.FUA, 1, 512, 1000) + payload
        for split in (1, 27, 28, 29, 500, 1027):
            client._parser.expect(Command.WRITE, 1, 512, 1000)
            await client.send(stream[:split])
            await asyncio.sleep(0.005)
            await client.send(stream[split:])
            assert await client.reply(1) == 0
            assert volume.data[512:1512] == payload
            volume.data[512:1512] = bytes(1000)
        assert all(request.durable and request.kind is Kind.WRITE for request in volume.seen)
        client.close()


async def test_error_of_ours_costs_a_client_its_connection_and_is_reported(short_path: Path) -> None:
    volume = MemoryVolume(MIB)
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def fail(requests: object) -> None:
        raise ZeroDivisionError

    volume.submit_all = fail  # type: ignore[method-assign]
    async with serving(
        short_path, {"v": volume, "w": MemoryVolume(MIB)}, pool=(pool := BufferPool())
    ) as running:
        client, other = await running.connect("v"), await running.connect("w")
        await client.request(Command.FLUSH)
        assert await client.is_hung_up_on()
        assert await other.write(0, b"fine") == 0
        client.close()
        other.close()
        await gone(running)
        assert pool.in_use_bytes == 0
    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_payloads_stay_as_they_came_while_more_arrives(short_path: Path) -> None:
    """Writes that take long keep their bytes although the receive buffers go on being filled."""
    volume = MemoryVolume(4 * MIB)
    volume.is_held = True
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        payload = os.urandom(2 * MIB)
        cookies = []
        at = 0
        while at < len(payload):
            length = min(1 + at % 50_000, len(payload) - at)
            cookies.append(await client.request(Command.WRITE, at, length, payload[at : at + length]))
            at += length
            if len(cookies) % 50 == 0:
                volume.let_go()
                volume.is_held = True
        volume.let_go()
        assert all([await client.reply(cookie) == 0 for cookie in cookies])
        assert volume.data[: len(payload)] == payload


@pytest.mark.parametrize("length", [4096, 256 << 10])
@pytest.mark.parametrize("flags", [0, CommandFlag.FUA])
async def test_durability_is_passed_on(short_path: Path, length: int, flags: int) -> None:
    volume = MemoryVolume(MIB)
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        assert await client.write(0, os.urandom(length), flags=flags) == 0
        assert [request.durable for request in volume.seen] == [bool(flags)]


async def test_leaving_the_server_does_not_wait_for_handshakes(short_path: Path) -> None:
    async with asyncio.timeout(5):
        async with serving(
            short_path, {"v": MemoryVolume(MIB)}, limits=Limits(handshake_seconds=60)
        ) as running:
            loop = asyncio.get_running_loop()
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            await loop.sock_connect(client, str(running.path))
            assert len(await loop.sock_recv(client, 4096)) == 18
    client.close()
