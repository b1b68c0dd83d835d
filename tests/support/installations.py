"""What `cutover init` writes, for tests: an installation in a folder of its own, and its NATS server."""

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.console.local_nats import any_port
from shared.bus.connection import Bus, connected
from shared.bus.server import NatsServer, nats_server
from shared.clock import SystemClock
from shared.config.load import load_nats
from shared.config.model import NatsConfig

ROOT = Path(__file__).parents[2]
FILES = {  # by role
    "bootstrap": "services/bootstrap.toml",
    "fault_recording": "services/fault_recording.toml",
    "state_control": "services/state_control.toml",
    "startup": "services/startup.toml",
    "monitor": "services/monitoring.toml",
    "operator": "operator.toml",
    "write_cloning-h1": "hosts/h1.toml",
    "write_cloning-h2": "hosts/h2.toml",
}


@dataclass(frozen=True, slots=True)
class Installation:
    folder: Path

    def config(self, role: str) -> NatsConfig:
        return load_nats(self.folder / FILES[role], {})

    def connect(self, role: str) -> AbstractAsyncContextManager[Bus]:
        return connected(self.config(role), name=role, clock=SystemClock())

    @property
    def server_text(self) -> str:
        return (self.folder / "nats/nats-server.conf").read_text()

    @asynccontextmanager
    async def server(self) -> AsyncIterator[NatsServer]:
        async with nats_server(self.folder / "nats/run", text=self.server_text) as server:
            yield server


def run_init(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "services.console", "init", str(folder), *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def make_installation(folder: Path, hosts: Sequence[str] = ("h1", "h2"), *arguments: str) -> Installation:
    """An installation on ports that are free."""
    ports = ("--nats-port", str(any_port()), "--nats-monitor", f"127.0.0.1:{any_port()}")
    done = run_init(folder, *(f"--host={host}" for host in hosts), *ports, *arguments)
    assert done.returncode == 0, done.stderr
    return Installation(folder)
