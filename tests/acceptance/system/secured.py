"""The whole system on what `cutover init` wrote, unchanged: every part with its own key, TLS, and least privileges."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from nats.aio.client import Client

from shared.bus.connection import connect
from shared.bus.server import start_server
from shared.clock import SystemClock
from shared.config.load import load_nats
from tests.acceptance.system.background import Background
from tests.acceptance.system.whole_system import CLONING, HOST, READY_TIMEOUT_S, ROOT, System
from tests.support.installations import Installation, make_installation


class SecuredSystem(System):
    """Started with the files of an installation. The test's own hand is the operator's."""

    def __init__(self, folder: Path, background: Background, *arguments: str) -> None:
        """`arguments` are more for `cutover init`."""
        super().__init__(folder, background)
        self.state_dir = folder / "state" / HOST
        where = ("--state-dir", str(folder / "state"), "--allow", f"{self.data}/**", "--allow")
        remote = f"nbd+unix:///*?socket={self.data}/**"
        self.installation: Installation = make_installation(
            folder / "etc", [HOST], *where, remote, *arguments
        )

    @property
    def etc(self) -> Path:
        return self.installation.folder

    def start_nats(self) -> None:
        """The server, as the file says."""
        text = self.installation.server_text
        self._nats = self._background.run(
            start_server(self.folder / "nats", text=text), timeout_s=READY_TIMEOUT_S
        )

    def reload_nats(self) -> None:
        """What `systemctl reload` does: the server reads its file again."""
        folder = self.folder / "nats"
        (folder / "nats-server.conf").write_text(self.installation.server_text)
        log = folder / "nats-server.log"
        before = log.stat().st_size
        os.kill(self.nats_pid, signal.SIGHUP)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while b"Reloaded server configuration" not in log.read_bytes()[before:]:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    async def _create_streams(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "shared.bus.bootstrap", "--config", str(self.etc / "services/bootstrap.toml")],
            cwd=ROOT, capture_output=True, text=True, timeout=READY_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def subject_when_ready(self, service: str) -> str:
        """The operator may not speak to hosts."""
        return f"$SRV.PING.cutover-{service.replace('_', '-')}"

    def config_of(self, service: str) -> Path:
        return self.etc / (f"hosts/{HOST}.toml" if service == CLONING else f"services/{service}.toml")

    def environment(self) -> dict[str, str]:
        return {"CUTOVER_CONFIG": str(self.etc / "operator.toml")}

    async def connect_plainly(self) -> Client:
        config = load_nats(self.etc / "operator.toml", {})
        return (await connect(config, name="test", clock=SystemClock())).client

    def _write_config(self) -> None:
        """Everything is written."""

    def seeds(self) -> list[str]:
        return [file.read_text().strip() for file in (self.etc / "secrets").iterdir()]

    def nats_program(self, program: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The stock `nats`, as the operator."""
        who = ("--nkey", str(self.etc / "secrets/operator.nk"), "--tlsca", str(self.etc / "tls/ca.pem"))
        url = load_nats(self.etc / "operator.toml", {}).url
        return subprocess.run(
            [program, "--server", url, "--no-context", *who, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip

    def operate(self, *arguments: str) -> dict[str, object]:
        """Run the operator's command, which has to succeed; what it says as JSON."""
        done = self.cutover(*arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        said: dict[str, object] = json.loads(done.stdout)
        return said


@contextmanager
def secured_system(background: Background) -> Iterator[SecuredSystem]:
    """One that runs."""
    folder = Path(tempfile.mkdtemp(prefix="cutover-", dir="/tmp"))
    system = SecuredSystem(folder, background)
    try:
        system.start()
        yield system
    finally:
        system.close()
        rmtree(folder)
