"""NBD servers for tests: nbdkit and qemu-nbd as processes, and one that says what a test tells it to."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from shared.nbd.constants import GREETING_MAGIC, OPTION_MAGIC

START_TIMEOUT_S = 10.0
LOOK_AGAIN_S = 0.01


class Server:
    """A server's process, and where it listens."""

    def __init__(self, uri: str, process: "subprocess.Popen[bytes]") -> None:
        self.uri = uri
        self.pid = process.pid
        self._process = process

    def stop_answering(self) -> None:
        """Freeze it; from the return on it does nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(START_TIMEOUT_S)


@contextmanager
def nbdkit(
    folder: Path, *arguments: str, tcp: bool = False, export: str = "", name: str = "nbdkit"
) -> Iterator[Server]:
    """Nbdkit with a plugin and filters, on a Unix socket or on TCP loopback."""
    path = folder / f"{name}.sock"
    port = _free_port() if tcp else 0
    where = ["--ipaddr", "127.0.0.1", "--port", str(port)] if tcp else ["--unix", str(path)]
    uri = f"nbd://127.0.0.1:{port}/{export}" if tcp else f"nbd+unix:///{export}?socket={path}"
    with _served(
        ["nbdkit", "--foreground", "--exit-with-parent", *where, *arguments], uri, path, port
    ) as server:
        yield server


@contextmanager
def qemu_nbd(folder: Path, image: Path, *arguments: str, tcp: bool = False) -> Iterator[Server]:
    """qemu-nbd over a raw image, for as many clients as come."""
    path = folder / "qemu.sock"
    port = _free_port() if tcp else 0
    where = ["--bind", "127.0.0.1", "--port", str(port)] if tcp else ["--socket", str(path)]
    uri = f"nbd://127.0.0.1:{port}/" if tcp else f"nbd+unix:///?socket={path}"
    command = ["qemu-nbd", "--format=raw", "--persistent", "--shared=0", *where, *arguments, str(image)]
    with _served(command, uri, path, port) as server:
        yield server


@contextmanager
def _served(command: list[str], uri: str, path: Path, port: int) -> Iterator[Server]:
    path.unlink(missing_ok=True)  # of a server that was killed
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until_listening(process, path, port)
        yield Server(uri, process)
    finally:
        process.kill()
        process.wait(START_TIMEOUT_S)
        path.unlink(missing_ok=True)


def _until_listening(process: "subprocess.Popen[bytes]", path: Path, port: int) -> None:
    """A server that runs in the foreground tells nobody when it listens."""
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET if port else socket.AF_UNIX) as client,
        ):
            client.connect(("127.0.0.1", port) if port else str(path))
            return
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < end, "the server does not listen"
        time.sleep(LOOK_AGAIN_S)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(folder: Path, script: Script, *, size_bytes: int, flags: int) -> AsyncIterator[str]:
    """A server that goes through an oldish handshake (no options but the export's name) and then says what the script does."""
    path = folder / "scripted.sock"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            writer.write(GREETING_MAGIC.to_bytes(8) + OPTION_MAGIC.to_bytes(8) + (2).to_bytes(2))
            await reader.readexactly(4 + 16)  # the client's flags; EXPORT_NAME with the empty name
            writer.write(size_bytes.to_bytes(8) + flags.to_bytes(2))
            await script(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield f"nbd+unix:///?socket={path}"
    finally:
        server.close()
        await server.wait_closed()
        if path.exists():
            os.unlink(path)  # noqa: PTH108 - a socket
