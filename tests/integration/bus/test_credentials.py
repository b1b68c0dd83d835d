"""Credentials and TLS, on real servers: what is wrong is told in a sentence, within seconds, by those that can mend it."""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import nats.errors
import pytest

from shared.bus.bootstrap import bootstrap
from shared.bus.client import RECONNECT_WAIT_S, REFUSED_WAIT_MAX_S, SteadyClient
from shared.bus.connection import Bus, connect, connected
from shared.bus.credentials import Credentials
from shared.bus.nkeys import key_pair, new_key_pair
from shared.bus.server import NatsServer, nats_server
from shared.clock import SystemClock
from shared.config.load import ConfigError
from shared.config.model import NatsConfig
from shared.messages.control import PlainRequest
from shared.migration.refusals import Code, Refusal
from tests.support.installations import Installation, make_installation, run_init

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return make_installation(tmp_path_factory.mktemp("init") / "etc", ["h1"])


@pytest.fixture
async def server(installation: Installation) -> AsyncIterator[NatsServer]:
    async with installation.server() as running:
        yield running


async def refused(config: NatsConfig) -> Refusal:
    """What a connection is refused with, soon."""
    began = time.monotonic()
    with pytest.raises(Refusal) as caught:
        await connect(config, name="t", clock=CLOCK, timeout_s=20)
    assert time.monotonic() - began < 10
    return caught.value


def seed_file(folder: Path, content: bytes, mode: int = 0o600) -> str:
    file = folder / "a.nk"
    file.write_bytes(content)
    file.chmod(mode)
    return str(file)


async def test_a_key_that_the_server_does_not_know_is_refused_by_its_file(
    server: NatsServer, installation: Installation, tmp_path: Path
) -> None:
    stranger = new_key_pair(os.urandom(32))
    file = seed_file(tmp_path, f"{stranger.seed}\n".encode())
    refusal = await refused(replace(installation.config("operator"), nkey_seed_file=file))
    assert refusal.code is Code.NOT_PERMITTED
    assert f"the NATS server refuses these credentials (the user of {file})" in refusal.message
    assert stranger.seed not in refusal.message


async def test_who_shows_no_credentials_is_told_where_they_are_named(
    server: NatsServer, installation: Installation
) -> None:
    refusal = await refused(replace(installation.config("operator"), nkey_seed_file=None))
    assert refusal.code is Code.NOT_PERMITTED
    assert "nats.nkey_seed_file" in refusal.message


async def test_an_inbox_of_somebody_else_is_refused_at_once(
    server: NatsServer, installation: Installation
) -> None:
    refusal = await refused(replace(installation.config("monitor"), inbox_prefix="_INBOX"))
    assert refusal.code is Code.NOT_PERMITTED
    assert "nats.inbox_prefix" in refusal.message


async def test_a_certificate_of_another_authority_is_refused(
    server: NatsServer, installation: Installation, tmp_path: Path
) -> None:
    other = make_installation(tmp_path / "other", ["h1"])
    file = str(other.folder / "tls/ca.pem")
    refusal = await refused(replace(installation.config("operator"), tls_ca_file=file))
    assert refusal.code is Code.JOURNAL_AWAY
    assert f"its certificate is not accepted by {file}: " in refusal.message


async def test_without_an_authority_the_key_that_names_one_is_told(
    server: NatsServer, installation: Installation
) -> None:
    refusal = await refused(replace(installation.config("operator"), tls_ca_file=None))
    assert refusal.code is Code.JOURNAL_AWAY
    assert "nats.tls_ca_file" in refusal.message


async def test_a_certificate_of_another_name_is_refused(
    server: NatsServer, installation: Installation
) -> None:
    url = installation.config("operator").url.replace("127.0.0.1", "127.0.0.2")
    text = installation.server_text.replace('host: "127.0.0.1"', 'host: "127.0.0.2"').replace(
        "http:", "#http:"
    )
    del server
    async with nats_server(installation.folder / "nats/second", text=text):
        refusal = await refused(replace(installation.config("operator"), url=url))
    assert "its certificate is not accepted" in refusal.message
    assert "127.0.0.2" in refusal.message


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_a_server_without_tls_is_told_nothing(
    installation: Installation, tmp_path: Path, scheme: str
) -> None:
    """Whoever sits on the way could say that there is no TLS: nothing may be sent to a server that says so."""
    said: list[bytes] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_id":"X","version":"2.15.1","nonce":"abc","auth_required":true,"headers":true}\r\n'
        )
        said.append(await reader.read(100))
        writer.close()

    pretender = await asyncio.start_server(pretend, "127.0.0.1", 0)
    async with pretender:
        port = pretender.sockets[0].getsockname()[1]
        refusal = await refused(replace(installation.config("operator"), url=f"{scheme}://127.0.0.1:{port}"))
    assert refusal.code is Code.JOURNAL_AWAY
    assert "offers no TLS" in refusal.message
    assert not b"".join(said)


async def test_a_key_that_is_replaced_on_the_server_is_refused_until_it_is_back(
    installation: Installation, tmp_path: Path
) -> None:
    async with installation.server() as server:
        file = installation.folder / "nats/run/nats-server.conf"
        right = file.read_text()
        async with connected(installation.config("bootstrap"), name="t", clock=CLOCK) as bus:
            await bootstrap(bus)
            await bus.request_bytes("$JS.API.STREAM.INFO.CUTOVER_JOURNAL", b"", timeout_s=5)
            lost, back, slowed = when_lost(bus), asyncio.Event(), when_slowed(bus)
            bus.on_reconnect(back.set)
            other = new_key_pair(os.urandom(32)).public_key
            mine = right[right.index("# bootstrap") :].partition("nkey: ")[2][:56]
            file.write_text(right.replace(mine, other))
            os.kill(server.pid, signal.SIGHUP)
            async with asyncio.timeout(20):
                await lost.wait()
            with pytest.raises(Refusal):
                await bus.publish("x", PlainRequest())
            async with asyncio.timeout(20):
                await slowed.wait()  # or the server's log would have four lines a second
            file.write_text(right)
            os.kill(server.pid, signal.SIGHUP)
            async with asyncio.timeout(20):
                await back.wait()
            await bus.request_bytes("$JS.API.STREAM.INFO.CUTOVER_JOURNAL", b"", timeout_s=5)
            assert bus.client.options["reconnect_time_wait"] == RECONNECT_WAIT_S


def test_who_is_refused_asks_less_and_less_often_and_a_server_that_restarts_is_asked_soon() -> None:
    """Cause: a service whose key was replaced asked four times a second, each time with a line in the server's log."""
    client = SteadyClient(Credentials(who="w"), demands_tls=False)
    client.options["reconnect_time_wait"] = RECONNECT_WAIT_S
    refused, waits_s = nats.errors.Error("nats: 'Authorization Violation'"), []
    for _ in range(8):
        client.pace_after(refused)
        waits_s.append(client.options["reconnect_time_wait"])
    assert waits_s == [0.5, 1.0, 2.0, 4.0, *[REFUSED_WAIT_MAX_S] * 4]
    for ended in (ConnectionRefusedError(), nats.errors.Error("nats: stale connection"), None):
        client.pace_after(refused)
        client.pace_after(ended)
        assert client.options["reconnect_time_wait"] == RECONNECT_WAIT_S


@pytest.mark.parametrize(
    "words", ["Authorization Violation", "User Authentication Expired", "Maximum Payload Violation"]
)
async def test_a_connection_that_the_server_ends_with_an_error_comes_back(words: str) -> None:
    """nats-py takes such an error for the end of everything: the host would stay away until it is restarted."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(b'INFO {"server_id":"X","version":"2.15.1","headers":true}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        port = server.sockets[0].getsockname()[1]
        async with connected(f"nats://127.0.0.1:{port}", name="t", clock=CLOCK) as bus:
            back = asyncio.Event()
            bus.on_reconnect(back.set)
            connections[0].write(f"-ERR '{words}'\r\n".encode())
            await back.wait()
            assert bus.is_connected
    assert len(connections) == 2


def when_slowed(bus: Bus) -> asyncio.Event:
    """Set when the waits between attempts have grown."""
    slowed, client = asyncio.Event(), bus.client
    assert isinstance(client, SteadyClient)
    pace = client.pace_after

    def note(error: Exception | None) -> None:
        pace(error)
        if client.options["reconnect_time_wait"] > 2 * RECONNECT_WAIT_S:
            slowed.set()

    client.pace_after = note  # type: ignore[method-assign]
    return slowed


def when_lost(bus: Bus) -> asyncio.Event:
    lost = asyncio.Event()
    tell = bus.connection_lost

    def note() -> None:
        tell()
        lost.set()

    bus.connection_lost = note  # type: ignore[method-assign]
    return lost


# ------------------------------------------------------------------ the files


async def mistake(config: NatsConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        await connect(config, name="t", clock=CLOCK)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has another length"),
        (b"\xff\xfe", "something else than text"),
        (b"hello\n", "not written in base32"),
        (b"SUAM" + b"A" * 60, "has another length"),
        (b"x" * 100_000, "is larger than"),
    ],
)
async def test_a_file_that_holds_no_seed_is_told_by_key_and_file(
    tmp_path: Path, content: bytes, why: str
) -> None:
    file = seed_file(tmp_path, content)
    told = await mistake(NatsConfig(nkey_seed_file=file))
    assert told.startswith(f"nats.nkey_seed_file: {file} ")
    assert why in told
    assert "allowed is a file with the seed of a NATS user's nkey" in told


async def test_a_seed_with_a_wrong_letter_is_told_and_not_shown(tmp_path: Path) -> None:
    seed = new_key_pair(os.urandom(32)).seed
    wrong = seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:]
    told = await mistake(NatsConfig(nkey_seed_file=seed_file(tmp_path, wrong.encode())))
    assert "check sum" in told
    assert wrong not in told


async def test_the_key_of_an_account_is_none_of_a_user(tmp_path: Path) -> None:
    account = "SAAJJ5Z7ZFU77TVZ2GSDDHIPGCV745ZERNF74ZRNQQE3LJEAL66BK62IUI"  # of `nats auth nkey gen account`
    told = await mistake(NatsConfig(nkey_seed_file=seed_file(tmp_path, account.encode())))
    assert "it is no seed of a user's key" in told


@pytest.mark.parametrize("key", ["nkey_seed_file", "tls_ca_file"])
async def test_a_file_that_is_not_there_is_told_by_its_key(tmp_path: Path, key: str) -> None:
    file = str(tmp_path / "nowhere")
    told = await mistake(NatsConfig(**{key: file}))  # type: ignore[arg-type] # both are paths
    assert told.startswith(f"nats.{key}: {file} cannot be read: No such file or directory; allowed is ")


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"x"]
)
async def test_a_file_without_a_certificate_is_told(tmp_path: Path, content: bytes) -> None:
    file = seed_file(tmp_path, content)
    told = await mistake(NatsConfig(tls_ca_file=file))
    assert (
        told == f"nats.tls_ca_file: {file} holds no certificate; allowed is a file with certificates in PEM."
    )


# ------------------------------------------------------------------ the keys


def test_a_seed_of_the_stock_tools_has_the_public_key_that_they_say() -> None:
    """`nats auth nkey gen user`, and `nats auth nkey show`."""
    pair = key_pair("SUAKTTOGFFI4IXSNZRFKRXWUV6LXR4FLJXQ24CVLZYD4UPPLBB333J6FCI")
    assert pair.public_key == "UBQGW4LAPDRL2P4YSPRTG7U3EPRT5T7ND54O35JB5JNJ24LJVR3EQ6OG"
    assert key_pair(new_key_pair(bytes(range(32))).seed).seed[:2] == "SU"


def test_no_text_of_a_key_shows_the_seed() -> None:
    pair = new_key_pair(os.urandom(32))
    assert pair.seed not in repr(pair)
    assert pair.seed not in str(pair)


async def test_an_authority_that_is_replaced_is_learnt_without_a_restart(tmp_path: Path) -> None:
    """Cause: the file was read once, so that everyone was cut off by a certificate of the authority that it had since."""
    installation = make_installation(tmp_path / "etc", ["h1"])
    new = make_installation(tmp_path / "new", ["h1"])
    async with installation.server():
        bus = await connect(installation.config("operator"), name="t", clock=CLOCK)
    try:
        with (installation.folder / "tls/ca.pem").open("a") as file:
            file.write((new.folder / "tls/ca.pem").read_text())
        key = str(new.folder / "tls/ca-key.pem")
        assert run_init(installation.folder, "--renew", "--ca-key", key).returncode == 0
        back = asyncio.Event()
        bus.on_reconnect(back.set)
        async with installation.server():
            async with asyncio.timeout(20):
                await back.wait()
            assert bus.trouble() is None
            await bus.client.flush()
    finally:
        await bus.close()
    clients = (installation.folder / "tls/nbd-client/ca-cert.pem").read_bytes()
    assert clients == (installation.folder / "tls/ca.pem").read_bytes(), "its clients know both, too"


async def test_whose_certificate_is_not_accepted_holds_up_no_end(tmp_path: Path) -> None:
    """Cause: closing waited for ever for the end of a stream whose TLS had failed, and so did a service on SIGTERM."""
    installation = make_installation(tmp_path / "etc", ["h1"])
    async with installation.server():
        bus = await connect(installation.config("operator"), name="t", clock=CLOCK)
    authority = (installation.folder / "tls/ca.pem").read_bytes()
    new = make_installation(tmp_path / "new", ["h1"])
    key = str(new.folder / "tls/ca-key.pem")
    (installation.folder / "tls/ca.pem").write_bytes((new.folder / "tls/ca.pem").read_bytes())
    assert run_init(installation.folder, "--renew", "--ca-key", key).returncode == 0
    (installation.folder / "tls/ca.pem").write_bytes(authority)
    refused_once = asyncio.Event()
    process_op_err = bus.client._error_cb

    async def heard(error: Exception) -> None:
        await process_op_err(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            refused_once.set()

    bus.client._error_cb = heard
    async with installation.server():
        async with asyncio.timeout(20):
            await refused_once.wait()
        began = time.monotonic()
        async with asyncio.timeout(20):
            await bus.close()
        assert time.monotonic() - began < 10
