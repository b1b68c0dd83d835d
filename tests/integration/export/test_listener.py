"""Where clients connect: Unix sockets, loopback, inherited sockets; and every refusal."""

import asyncio
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.export.errors import (
    ActivationError,
    AddressError,
    ExportPoolError,
    SocketInUseError,
    SocketPathError,
)
from services.write_cloning.export.limits import Limits
from services.write_cloning.export.listener import inherited_listeners, listen_tcp, listen_unix
from services.write_cloning.export.server import ExportServer
from shared.clock import SystemClock
from tests.integration.export.harness import MIB, run
from tests.integration.export.memory_volume import MemoryVolume

SERVE = (sys.executable, "-m", "tests.integration.export.serve")


def test_unix_socket_is_for_this_user_alone_and_goes_when_it_is_closed(short_path: Path) -> None:
    path = short_path / "s"
    listener = listen_unix(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert listener.address == listener.reachable_address == str(path)
    assert not listener.is_tcp
    listener.close()
    assert not path.exists()


def test_left_over_socket_is_replaced(short_path: Path) -> None:
    path = short_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listen_unix(path).close()


def test_socket_in_use_is_left_alone(short_path: Path) -> None:
    path = short_path / "s"
    first = listen_unix(path)
    with pytest.raises(SocketInUseError):
        listen_unix(path)
    assert path.exists()
    first.close()


def test_file_in_the_way_is_left_alone(short_path: Path) -> None:
    path = short_path / "s"
    path.write_text("precious")
    with pytest.raises(SocketPathError):
        listen_unix(path)
    assert path.read_text() == "precious"


def test_folder_that_is_missing_or_none_is_named(short_path: Path) -> None:
    (short_path / "file").touch()
    with pytest.raises(SocketPathError, match=f"there is no folder {short_path}/none"):
        listen_unix(short_path / "none" / "s")
    with pytest.raises(SocketPathError, match=f"{short_path}/file/s"):
        listen_unix(short_path / "file" / "s")


def test_socket_of_somebody_else_is_not_removed(short_path: Path) -> None:
    path = short_path / "s"
    first = listen_unix(path)
    path.unlink()
    second = listen_unix(path)
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


def test_path_is_bounded(short_path: Path) -> None:
    room = 107 - len(os.fsencode(short_path)) - 1
    listen_unix(short_path / ("n" * room)).close()
    with pytest.raises(SocketPathError, match="107"):
        listen_unix(short_path / ("n" * (room + 1)))


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.org", ""])
def test_tcp_is_on_an_address_of_this_host(host: str) -> None:
    with pytest.raises(AddressError):
        listen_tcp(host, 0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_clients_find_a_listener_on_all_addresses_by_the_name_of_the_machine(host: str) -> None:
    listener = listen_tcp(host, 0)
    port = listener.address.rpartition(":")[2]
    assert listener.reachable_address == f"{socket.gethostname()}:{port}"
    listener.close()


def test_a_port_is_taken_of_one_family_alone() -> None:
    first = listen_tcp("::", 0)
    second = listen_tcp("0.0.0.0", int(first.address.rpartition(":")[2]))
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("host", "uri_host"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "[::1]")]
)
async def test_tcp_on_loopback(host: str, uri_host: str) -> None:
    async with ExportServer(SystemClock()) as server:
        server.add("v", MemoryVolume(MIB), BufferPool())
        server.listen(listener := listen_tcp(host, 0))
        port = listener.address.rpartition(":")[2]
        assert await run("nbdinfo", "--size", f"nbd://{uri_host}:{port}/v") == f"{MIB}\n"
        with pytest.raises(SocketInUseError):
            listen_tcp(host, int(port))


async def test_clients_over_tcp_are_named_by_address() -> None:
    async with ExportServer(SystemClock()) as server:
        server.add("v", MemoryVolume(MIB), BufferPool())
        server.listen(listener := listen_tcp("127.0.0.1", 0))
        port = listener.address.rpartition(":")[2]
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/python3",
            "-c",
            f"import nbd; h = nbd.NBD(); h.connect_uri('nbd://127.0.0.1:{port}/v'); print(flush=True); input()",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"\n"
        (client,) = server.clients("v")
        assert client.name.startswith("127.0.0.1:")
        await process.communicate(b"\n")


def test_unused_activation_gives_no_sockets() -> None:
    assert inherited_listeners({}, 42) == []
    environment = {"LISTEN_PID": "41", "LISTEN_FDS": "1", "OTHER": "kept"}
    assert inherited_listeners(environment, 42) == []
    assert environment == {"OTHER": "kept"}


@pytest.mark.parametrize("count", ["0", "-1", "x", "65"])
def test_activation_that_makes_no_sense_is_refused(count: str) -> None:
    with pytest.raises(ActivationError):
        inherited_listeners({"LISTEN_PID": "42", "LISTEN_FDS": count}, 42)


async def test_socket_activation_by_a_judge() -> None:
    said = await run("nbdinfo", "--size", "--", "[", *SERVE, "v=1048576", "]")
    assert said.splitlines()[-1] == "1048576"


@pytest.mark.parametrize("what", ["file", "datagram", "not listening"])
async def test_descriptor_that_is_no_listening_socket_is_refused(short_path: Path, what: str) -> None:
    """In a process of its own, because the descriptors are numbers 3 and up."""
    make = {
        "file": "open('/dev/null')",
        "datagram": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]",
        "not listening": "socket.socket()",
    }[what]
    script = (
        f"import os, socket; thing = {make}; os.dup2(thing.fileno(), 3)\n"
        "from services.write_cloning.export.listener import inherited_listeners\n"
        "inherited_listeners({'LISTEN_PID': '1', 'LISTEN_FDS': '1'}, 1)\n"
    )
    said = await run(sys.executable, "-c", script, expect=1)
    assert "ActivationError: descriptor 3 is no" in said


async def test_signal_ends_the_server_and_its_socket(short_path: Path) -> None:
    path = short_path / "s"
    process = await asyncio.create_subprocess_exec(
        *SERVE, "--socket", str(path), "v=1048576", "w=2097152", stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    assert await process.stderr.readline() == b"ready\n"
    assert await run("nbdinfo", "--size", f"nbd+unix:///w?socket={path}") == "2097152\n"
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0
    assert not path.exists()


async def test_pool_must_be_able_to_serve_every_connection() -> None:
    async with ExportServer(SystemClock(), Limits(connections=8)) as server:
        with pytest.raises(ExportPoolError):
            server.add("v", MemoryVolume(MIB), BufferPool(2 * MIB))
        server.add("v", MemoryVolume(MIB), BufferPool(3 * MIB))
