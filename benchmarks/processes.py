"""Starting and stopping the servers that are measured."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STOP_SECONDS = 180  # Cutover's clean shutdown may take more than a minute before it gives up

# The server finds its listening socket as descriptor 3, and its own process id in LISTEN_PID.
_ACTIVATE = 'exec 3<&"$0"; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'


@contextmanager
def listening_server(command: list[str], path: Path) -> Iterator[None]:
    """Run a server by socket activation on a Unix socket.

    The socket listens before the server starts, so that a client's first connection waits for the server and nobody has
    to guess when it is ready.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        descriptor = listener.fileno()
        process = subprocess.Popen(
            ["/bin/sh", "-c", _ACTIVATE, str(descriptor), *command],
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended by itself with status {process.returncode}")
    finally:
        stop(process)
        path.unlink()


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask a process to stop, wait until it has, and return its status; one that will not stop is killed."""
    process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
