"""TLS: who is served, what an eavesdropper or somebody in between gets, and that all else is as in clear text."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.export import tls
from services.write_cloning.export.limits import Limits
from services.write_cloning.export.listener import listen_tcp
from services.write_cloning.export.server import ExportServer
from services.write_cloning.export.tls import Tls
from shared.clock import SystemClock
from shared.nbd.constants import Command, NbdError
from shared.nbd.requests import pack_request
from shared.tls.files import TlsFiles
from tests.integration.export.harness import MIB, run, until
from tests.integration.export.memory_volume import MemoryVolume
from tests.integration.export.rekeying_client import RekeyingClient
from tests.integration.export.tls_client import (
    CLIENT_FLAGS,
    STARTTLS,
    TlsClient,
    Tunnel,
    client_context,
    connect_plainly,
    start_tls,
)
from tests.support.certificates import Pki, write, write_key

SECRET_NAME = "payroll"


class Secured:
    """A running server with TLS, and how clients find it."""

    def __init__(self, server: ExportServer, port: int, pool: BufferPool, pki: Pki) -> None:
        self.server = server
        self.port = port
        self.pool = pool
        self.pki = pki

    def uri(self, name: str = "v", *, client: Path | None = None, scheme: str = "nbds") -> str:
        plain = f"{scheme}://localhost:{self.port}/{name}"
        return f"{plain}?tls-certificates={client or self.pki.good}" if scheme == "nbds" else plain

    async def connect(self, name: str = "v", version: ssl.TLSVersion | None = None) -> TlsClient:
        return await TlsClient.open(self.port, client_context(self.pki.good, version), name)

    async def gone(self, name: str = "v") -> None:
        """Wait until an export has no clients."""
        async with asyncio.timeout(10):
            while self.server.clients(name):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def secured(
    pki: Pki,
    volumes: dict[str, MemoryVolume],
    limits: Limits | None = None,
    files: TlsFiles | None = None,
    send_buffer_bytes: int | None = None,
) -> AsyncIterator[Secured]:
    """Serve volumes with TLS; in the end every buffer must be back in the pool."""
    pool = BufferPool()
    served_with = Tls(
        files or TlsFiles(certificate=pki.certificate, key=pki.key, client_ca=pki.ca), SystemClock()
    )
    async with ExportServer(SystemClock(), limits) as server:
        for name, volume in volumes.items():
            server.add(name, volume, pool, description=f"volume {name}")
        listener = listen_tcp("127.0.0.1", 0)
        if send_buffer_bytes is not None:  # what is accepted inherits it
            listener._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        server.listen(listener, served_with)
        yield Secured(server, int(listener.address.rpartition(":")[2]), pool, pki)
    served_with.close()
    assert pool.in_use_bytes == 0
    pool.close()


# ------------------------------------------------------------------------------------------------- independent clients


async def test_nbdinfo_is_served_and_is_known_by_its_certificate(pki: Pki) -> None:
    async with secured(pki, {"v": MemoryVolume(MIB), "w": MemoryVolume(2 * MIB)}) as running:
        told = json.loads(await run("nbdinfo", "--json", running.uri()))
        assert (told["TLS"], told["exports"][0]["export-size"]) == (True, MIB)
        listed = json.loads(await run("nbdinfo", "--list", "--json", running.uri("")))
        assert [export["export-name"] for export in listed["exports"]] == ["v", "w"]
        client = await running.connect()
        assert [each.name.partition(" (")[0] for each in running.server.clients("v")] == ["client good"]
        client.close()


async def test_nbdcopy_brings_64_mib_in_and_out_unchanged(pki: Pki, short_path: Path) -> None:
    volume = MemoryVolume(64 * MIB)
    image, back = short_path / "in", short_path / "out"
    image.write_bytes(os.urandom(64 * MIB))
    async with secured(pki, {"v": volume}) as running:
        await run("nbdcopy", "--connections=4", "--requests=64", "--flush", str(image), running.uri())
        assert volume.data == image.read_bytes()
        await run("nbdcopy", "--connections=2", running.uri(), str(back))
        assert image.read_bytes() == back.read_bytes()


async def test_qemu_reads_and_writes(pki: Pki, short_path: Path) -> None:
    volume = MemoryVolume(MIB)
    async with secured(pki, {"v": volume}) as running:
        credentials = f"tls-creds-x509,id=tls,dir={pki.good},endpoint=client"
        export = f"driver=nbd,host=localhost,port={running.port},export=v,tls-creds=tls"
        options = ("--object", credentials, "--image-opts")
        commands = ("-c", "write -f -P 7 4k 64k", "-c", "read -P 7 4k 64k", "-c", "flush")
        assert "failed" not in await run("qemu-io", *options, *commands, export)
        assert (
            json.loads(await run("qemu-img", "info", "--output=json", *options, export))["virtual-size"]
            == MIB
        )
    assert volume.data[4096 : 68 << 10] == b"\7" * (64 << 10)


async def test_nbd_client_lists_what_there_is(pki: Pki) -> None:
    """As far as it goes without its kernel module: the handshake is its program's."""
    own = {"certfile": "client-cert.pem", "keyfile": "client-key.pem", "cacertfile": "ca-cert.pem"}
    options = [part for option, name in own.items() for part in (f"-{option}", str(pki.good / name))]
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        where = ("-l", "localhost", str(running.port))
        said = await run("nbd-client", *where, *options, "-tlshostname", "localhost")
        assert "v: volume v" in said
        assert "TLS comes first" in await run("nbd-client", *where, expect=1)


async def test_fio_verifies_what_it_wrote(pki: Pki, short_path: Path) -> None:
    """It has no way to name certificates: they are where libnbd looks for a user's. Root would have none of its own."""
    shutil.copytree(pki.good, short_path / ".pki" / "libnbd")
    for path in (short_path, *short_path.rglob("*")):
        path.chmod(0o755)
    as_a_user = ("setpriv", "--reuid=65534", "--clear-groups") if os.getuid() == 0 else ()
    async with secured(pki, {"v": MemoryVolume(16 * MIB)}) as running:
        uri = running.uri().partition("?")[0]
        job = f"--name=v --ioengine=nbd --uri={uri} --rw=randwrite --size=16M --iodepth=32 --bsrange=4k-256k"
        verify = "--bs_unaligned=0 --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0"
        said = await run(*as_a_user, "env", f"HOME={short_path}", "fio", *job.split(), *verify.split())
        assert "err= 0" in said


# ---------------------------------------------------------------------------------------------------- who is turned away


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("none", "peer did not return a certificate"),
        ("wrong", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
    ],
)
async def test_client_without_a_good_certificate_is_told_and_turned_away(
    pki: Pki, kind: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with secured(pki, {SECRET_NAME: MemoryVolume(MIB)}) as running:
        said = await run("nbdinfo", "--list", running.uri("", client=getattr(pki, kind)), expect=1)
        assert "TLS fatal alert has been received" in said
        assert SECRET_NAME not in said
        (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert "was turned away by TLS" in record.message
        assert why in record.message


async def test_client_that_does_not_trust_the_server_goes(pki: Pki) -> None:
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        said = await run("nbdinfo", running.uri(client=pki.distrustful), expect=1)
        assert "Error in the certificate verification" in said


@pytest.mark.parametrize("arguments", [("--list",), ("--size",), ("--map",)])
async def test_plain_client_is_told_that_tls_is_needed_and_no_name(
    pki: Pki, arguments: tuple[str, ...]
) -> None:
    async with secured(pki, {SECRET_NAME: MemoryVolume(MIB)}) as running:
        said = await run(
            "nbdinfo", *arguments, running.uri("" if "--list" in arguments else "v", scheme="nbd"), expect=1
        )
        assert SECRET_NAME not in said
        assert "TLS" in said or "Operation not supported" in said


async def test_plain_client_that_asks_by_name_alone_is_hung_up_on(pki: Pki) -> None:
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        loop = asyncio.get_running_loop()
        connection = await connect_plainly(running.port)
        await loop.sock_sendall(connection, CLIENT_FLAGS + struct.pack(">8sII1s", b"IHAVEOPT", 1, 1, b"v"))
        assert await _everything(connection) == b""


async def test_tls_client_of_a_plain_server_goes(pki: Pki) -> None:
    async with ExportServer(SystemClock()) as server:
        server.add("v", MemoryVolume(MIB), BufferPool())
        server.listen(listener := listen_tcp("127.0.0.1", 0))
        uri = f"nbds://{listener.address}/v?tls-certificates={pki.good}"
        said = await run("nbdinfo", "--size", uri, expect=1)
        assert "TLS" in said


@pytest.mark.parametrize(("version", "is_served"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
async def test_old_versions_of_tls_are_refused(pki: Pki, version: str, is_served: bool) -> None:
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        with contextlib.nullcontext() if is_served else pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context = client_context(pki.good, ssl.TLSVersion[version])
        context.set_ciphers("ALL:@SECLEVEL=0")
        with contextlib.nullcontext() if is_served else pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            client = await TlsClient.open(running.port, context)
            assert await client.write(0, b"secret") == 0
            assert await client.read(0, 6) == b"secret"
            assert client.tunnel.tls.version() == version.replace("_", ".")
            client.close()


# ------------------------------------------------------------------------------------------------------ in the handshake


@pytest.mark.parametrize(
    "injected",
    [
        b"x",
        struct.pack(">8sII", b"IHAVEOPT", 3, 0),
        struct.pack(">8sII", b"IHAVEOPT", 2, 0),
        b"\x16\x03\x01\x00\xff",
    ],
)
async def test_clear_text_behind_starttls_ends_the_connection(pki: Pki, injected: bytes) -> None:
    """What somebody in between has put there is not answered, neither before TLS nor under it."""
    async with secured(pki, {SECRET_NAME: MemoryVolume(MIB)}) as running:
        connection = await connect_plainly(running.port)
        await asyncio.get_running_loop().sock_sendall(connection, CLIENT_FLAGS + STARTTLS + injected)
        assert await _everything(connection) == b""


async def test_clear_text_instead_of_a_handshake_ends_the_connection(pki: Pki) -> None:
    """The same, when it comes after the answer to STARTTLS."""
    async with secured(pki, {SECRET_NAME: MemoryVolume(MIB)}) as running:
        connection = await start_tls(running.port)
        await asyncio.get_running_loop().sock_sendall(connection, struct.pack(">8sII", b"IHAVEOPT", 3, 0) * 4)
        said = await _everything(connection)
        assert len(said) <= 7, "no more than an alert"
        assert SECRET_NAME.encode() not in said


@pytest.mark.parametrize("part", [0, 1, 100])
async def test_client_that_stalls_within_the_tls_handshake_is_hung_up_on(pki: Pki, part: int) -> None:
    async with secured(pki, {"v": MemoryVolume(MIB)}, Limits(handshake_seconds=0.3)) as running:
        connection = await start_tls(running.port)
        tunnel = Tunnel(connection, client_context(pki.good))
        with pytest.raises(ssl.SSLWantReadError):
            tunnel.tls.do_handshake()
        hello = tunnel.outgoing.read()
        await asyncio.get_running_loop().sock_sendall(connection, hello[:part])
        async with asyncio.timeout(5):
            assert await _everything(connection) == b""


async def test_clients_that_stall_lock_out_nobody(pki: Pki) -> None:
    async with secured(pki, {"v": MemoryVolume(MIB)}, Limits(handshakes=4, handshake_seconds=60)) as running:
        stalled = [await start_tls(running.port) for _ in range(6)]
        client = await running.connect()
        assert await client.write(0, b"served") == 0
        client.close()
        for connection in stalled:
            connection.close()


async def test_arithmetic_of_a_handshake_keeps_nobody_waiting(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes milliseconds of a processor, and clients without certificates may come in storms."""
    begun, may_go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        first = await running.connect()

        def slowly(handshake: ssl.SSLObject) -> bool:
            loop.call_soon_threadsafe(begun.set)
            assert may_go_on.wait(10)
            return shake_hands(handshake)

        shake_hands = tls._advance
        monkeypatch.setattr(tls, "_advance", slowly)
        async with asyncio.TaskGroup() as tasks:
            newcomer = tasks.create_task(running.connect())
            await until(begun)
            assert await first.write(0, b"not waiting") == 0
            assert not newcomer.done()
            may_go_on.set()
        assert await newcomer.result().read(0, 11) == b"not waiting"
        newcomer.result().close()
        first.close()


async def test_starttls_under_tls_is_refused_and_negotiation_goes_on(pki: Pki) -> None:
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        tunnel = Tunnel(await start_tls(running.port), client_context(pki.good))
        await tunnel.shake_hands()
        await tunnel.send(STARTTLS)
        assert (await tunnel.receive(4096))[12:16] == struct.pack(">I", (1 << 31) + 3)
        await tunnel.send(struct.pack(">8sII", b"IHAVEOPT", 3, 0))
        assert b"v" in await tunnel.receive(4096)
        tunnel.connection.close()


async def test_abort_under_tls_is_acknowledged_and_tls_is_ended_first(pki: Pki) -> None:
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        tunnel = Tunnel(await start_tls(running.port), client_context(pki.good))
        await tunnel.shake_hands()
        await tunnel.send(struct.pack(">8sII", b"IHAVEOPT", 2, 0))
        assert (await tunnel.receive(4096))[12:16] == struct.pack(">I", 1)
        assert await tunnel.receive(1) == b""
        assert tunnel.was_told
        assert await _everything(tunnel.connection) == b""


async def test_requests_that_come_along_with_the_handshake_are_served(pki: Pki) -> None:
    """In one record with GO, and in records that came in the same packet: nothing but TLS knows that they are there."""
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        tunnel = Tunnel(await start_tls(running.port), client_context(pki.good))
        await tunnel.shake_hands()
        by_name = struct.pack(">8sII1s", b"IHAVEOPT", 1, 1, b"v")
        tunnel.encrypt(by_name + pack_request(Command.WRITE, 0, 1, 0, 5) + b"hel")
        tunnel.encrypt(b"lo" + pack_request(Command.FLUSH, 0, 2, 0, 0))
        tunnel.encrypt(pack_request(Command.READ, 0, 3, 0, 5))
        await tunnel.flush()
        received = b""
        async with asyncio.timeout(5):
            while len(received) < 10 + 3 * 16 + 5:
                received += await tunnel.receive(4096)
        assert b"hello" in received
        tunnel.connection.close()


# --------------------------------------------------------------------------------------------------- in the transmission


async def test_what_tls_holds_is_served_when_the_window_opens(pki: Pki) -> None:
    """The socket has nothing any more: the loop would not call."""
    volume = MemoryVolume(4 * MIB)
    volume.is_held = True
    async with secured(pki, {"v": volume}, Limits(requests_per_connection=8)) as running:
        client = await running.connect()
        payload = os.urandom(100 * 4096)
        cookies = [
            await client.request(Command.WRITE, at, 4096, payload[at : at + 4096])
            for at in range(0, len(payload), 4096)
        ]
        await until(volume.arrived)
        await asyncio.sleep(0.05)
        assert volume.most_held == len(volume.held) == 8
        volume.let_go()
        async with asyncio.timeout(10):
            assert [await client.reply(cookie) for cookie in cookies] == [0] * len(cookies)
        assert volume.data[: len(payload)] == payload
        client.close()


@pytest.mark.parametrize("length", [1, 28, 16 << 10, 65 << 10, 300 << 10, 3 * MIB])
async def test_payloads_of_any_length_come_whole_however_they_are_cut_into_records(
    pki: Pki, length: int
) -> None:
    volume = MemoryVolume(4 * MIB)
    async with secured(pki, {"v": volume}) as running:
        client = await running.connect()
        payload = os.urandom(length)
        stream = (
            pack_request(Command.WRITE, 0, 1, 5, length)
            + payload
            + pack_request(Command.READ, 0, 2, 5, length)
        )
        for size in (len(stream), 1000, 1 + len(stream) // 3):
            client._parser.expect(Command.WRITE, 1, 5, length)
            client._parser.expect(Command.READ, 2, 5, length)
            for at in range(0, len(stream), size):
                client.tunnel.encrypt(stream[at : at + size])
            await client.tunnel.flush()
            async with asyncio.timeout(10):
                assert (await client.reply(1), await client.reply(2)) == (0, 0)
            assert client.take(2) == payload
            assert volume.data[5 : 5 + length] == payload
            volume.data[5 : 5 + length] = bytes(length)
        client.close()


@pytest.mark.parametrize("length", [4096, 256 << 10])
async def test_client_that_never_reads_is_bounded(pki: Pki, length: int) -> None:
    volume = MemoryVolume(4 * MIB)
    limits = Limits(payload_bytes_per_connection=4 * MIB, requests_per_connection=64)
    async with secured(pki, {"v": volume}, limits) as running:
        client = await running.connect()
        client.tunnel.encrypt(
            b"".join(pack_request(Command.READ, 0, each, 0, length) for each in range(600_000))
        )
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.tunnel.flush()
        assert len(volume.seen) < 10_000
        assert running.pool.in_use_bytes <= 6 * MIB
        other = await running.connect()
        assert await other.read(0, 4096) == bytes(4096)
        client.close()
        other.close()
        await running.gone()
        assert running.pool.in_use_bytes == 0


@pytest.mark.parametrize("length", [16 << 10, MIB])
@pytest.mark.parametrize("sent", [0, 1000])
@pytest.mark.parametrize("says_goodbye", [False, True])
async def test_nothing_of_a_payload_that_breaks_off_is_applied(
    pki: Pki, length: int, sent: int, says_goodbye: bool
) -> None:
    volume = MemoryVolume(4 * MIB)
    async with secured(pki, {"v": volume}) as running:
        client = await running.connect()
        await client.send(pack_request(Command.WRITE, 0, 1, 0, length) + b"x" * sent)
        if says_goodbye:
            await client.say_goodbye()
            assert await client.is_hung_up_on()
        client.close()
        await running.gone()
    assert volume.seen == []


async def test_record_that_was_spoilt_ends_the_connection(pki: Pki) -> None:
    volume = MemoryVolume(MIB)
    async with secured(pki, {"v": volume}) as running:
        client = await running.connect()
        client.tunnel.encrypt(pack_request(Command.WRITE, 0, 1, 0, 4096) + bytes(4096))
        spoilt = bytearray(client.tunnel.outgoing.read())
        spoilt[2000] ^= 1
        await asyncio.get_running_loop().sock_sendall(client.socket, spoilt)
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            await client.receive()
        await running.gone()
        client.close()
    assert volume.seen == []


async def test_client_that_sends_no_more_still_gets_its_replies(pki: Pki) -> None:
    volume = MemoryVolume(4 * MIB)
    volume.is_held = True
    async with secured(pki, {"v": volume}) as running:
        client = await running.connect()
        cookie = await client.request(Command.READ, 0, 2 * MIB)
        client.socket.shutdown(socket.SHUT_WR)
        await until(volume.arrived)
        volume.let_go()
        assert await client.reply(cookie) == 0
        assert await client.is_hung_up_on()
        client.close()


async def test_server_ends_tls_before_it_hangs_up(pki: Pki) -> None:
    """Otherwise a client could not tell a server that stops from somebody who cuts it off."""
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        client = await running.connect()
        await running.server.disconnect("v")
        assert await client.tunnel.receive(1) == b""
        assert client.tunnel.was_told
        client.close()


async def test_client_may_ask_for_new_keys_all_the_time(pki: Pki) -> None:
    volume = MemoryVolume(4 * MIB)
    payload = os.urandom(100 << 10)

    def work(port: int) -> None:
        client = RekeyingClient(port, pki.good)
        for number in range(100):
            client.ask_for_new_keys()
            assert client.send(pack_request(Command.WRITE, 0, number, number, len(payload)))
            client.ask_for_new_keys()
            assert client.send(payload + pack_request(Command.READ, 0, number, number, len(payload)))
            assert client.receive(2 * 16 + len(payload))[32:] == payload
        client.close()

    async with secured(pki, {"v": volume}) as running:
        await asyncio.to_thread(work, running.port)
        await running.gone()


async def test_client_that_asks_for_new_keys_and_takes_none_is_hung_up_on(pki: Pki) -> None:
    """With a byte of a payload in between, so that TLS itself sees no harm in it; the answers would pile up for ever."""

    def work(port: int) -> bool:
        client = RekeyingClient(port, pki.good, receive_buffer_bytes=4096)
        client.send(pack_request(Command.WRITE, 0, 1, 0, 4 * MIB))
        for _ in range(200_000):  # sockets hold many of them where the server is slow to look
            client.ask_for_new_keys()
            if not client.send(b"x"):
                client.close()
                return True
        client.close()
        return False

    async with secured(pki, {"v": MemoryVolume(4 * MIB)}, send_buffer_bytes=4096) as running:
        assert await asyncio.to_thread(work, running.port)
        await running.gone()


async def test_many_clients_at_once(pki: Pki) -> None:
    """As many as may; idle they hold nothing of the pool."""
    volume = MemoryVolume(4 * MIB)
    async with secured(pki, {"v": volume}) as running:
        context = client_context(pki.good)
        clients = await asyncio.gather(*(TlsClient.open(running.port, context) for _ in range(100)))
        errors = await asyncio.gather(
            *(each.write(4096 * at, bytes([at]) * 4096) for at, each in enumerate(clients))
        )
        assert errors == [0] * 100
        for at, client in enumerate(clients):
            assert await client.read(4096 * at, 4096) == bytes([at]) * 4096
        assert running.pool.in_use_bytes == 0
        for client in clients:
            client.close()
        await running.gone()


async def test_volume_that_shuts_down_is_told_by_its_error(pki: Pki) -> None:
    volume = MemoryVolume(MIB)
    async with secured(pki, {"v": volume}) as running:
        client = await running.connect()
        running.server.begin_shutdown()
        volume.is_shut_down = True
        assert await client.write(0, b"x" * 100) == NbdError.ESHUTDOWN
        client.close()


# ------------------------------------------------------------------------------------------------------------- the files


async def test_renewed_certificate_is_shown_to_new_clients_and_the_others_stay(
    pki: Pki, tmp_path: Path
) -> None:
    files = TlsFiles(certificate=tmp_path / "c", key=tmp_path / "k", client_ca=pki.ca)
    files.certificate.write_bytes(pki.certificate.read_bytes())
    files.key.write_bytes(pki.key.read_bytes())

    async def serial(running: Secured) -> object:
        client = await running.connect()
        shown = client.tunnel.tls.getpeercert()
        client.close()
        assert shown is not None
        return shown["serialNumber"]

    async with secured(pki, {"v": MemoryVolume(MIB)}, files=files) as running:
        stays = await running.connect()
        first = await serial(running)
        files.certificate.write_bytes(b"half of a f")  # being written, or spoilt: that of before goes on
        assert await serial(running) == first
        certificate, key = pki.authority.issue("localhost", is_server=True)
        write_key(files.key, key)
        write(files.certificate, certificate)
        assert await serial(running) == f"{certificate.serial_number:X}".zfill(len(str(first)))
        assert await stays.write(0, b"still here") == 0
        stays.close()


async def test_whatever_is_wrong_with_new_files_those_of_before_are_used(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = TlsFiles(certificate=tmp_path / "c", key=pki.key, client_ca=pki.ca)
    files.certificate.write_bytes(pki.certificate.read_bytes())

    def fail(*_: object) -> ssl.SSLContext:
        raise ZeroDivisionError

    async with secured(pki, {"v": MemoryVolume(MIB)}, files=files) as running:
        monkeypatch.setattr("shared.tls.certificates.server_context", fail)
        files.certificate.touch()
        client = await running.connect()
        assert await client.write(0, b"served") == 0
        client.close()


@pytest.mark.parametrize(
    ("name", "shown"), [("evil\nname\x1b[2J", r"evil\nname\x1b[2J"), ("n" * 64, "n" * 64), ("ünï", "ünï")]
)
async def test_names_in_certificates_are_shown_without_tricks(
    pki: Pki, tmp_path: Path, name: str, shown: str
) -> None:
    certificate, key = pki.authority.issue(name)
    write(tmp_path / "ca-cert.pem", pki.authority.certificate)
    write(tmp_path / "client-cert.pem", certificate)
    write_key(tmp_path / "client-key.pem", key)
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        client = await TlsClient.open(running.port, client_context(tmp_path))
        (told,) = running.server.clients("v")
        assert told.name.startswith(f"{shown} (127.0.0.1:")
        client.close()


async def test_certificate_whose_name_cannot_be_read_is_served_all_the_same(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(tls, "_common_name", fail)
    async with secured(pki, {"v": MemoryVolume(MIB)}) as running:
        client = await running.connect()
        (told,) = running.server.clients("v")
        assert told.name.startswith("127.0.0.1:")
        client.close()


async def test_without_a_client_ca_no_certificate_is_asked_for(pki: Pki) -> None:
    async with secured(
        pki, {"v": MemoryVolume(MIB)}, files=TlsFiles(certificate=pki.certificate, key=pki.key)
    ) as running:
        assert await run("nbdinfo", "--size", running.uri(client=pki.none)) == f"{MIB}\n"


async def _everything(connection: socket.socket) -> bytes:
    """What comes until the server hangs up, and hang up oneself."""
    loop, said = asyncio.get_running_loop(), b""
    async with asyncio.timeout(10):
        with connection, contextlib.suppress(ConnectionResetError):
            while data := await loop.sock_recv(connection, 4096):
                said += data
    return said
