"""The real thing on a machine of its own: a NATS server and the four services as processes, over one temporary folder."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nats
import nats.errors
from nats.aio.client import Client

from shared.bus.bootstrap import bootstrap
from shared.bus.connection import connected
from shared.bus.server import NatsServer, start_server
from shared.clock import SystemClock
from tests.acceptance.system.background import Background
from tests.acceptance.system.plain_client import Json, PlainClient

ROOT = Path(__file__).parents[3]
HOST = "h1"
CLONING = "write_cloning"
SERVICES = ("fault_recording", "state_control", "startup", CLONING)
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
ASK_AGAIN_S = 0.02


class System:
    """Everything that `cutover up` runs, each part in the test's own hand."""

    def __init__(self, folder: Path, background: Background, **host_options: object) -> None:
        """Nothing runs yet. Host options are keys of the section `[host]`."""
        self.folder = folder
        self.state_dir = folder / "host"
        self.data = folder / "data"
        self.data.mkdir(exist_ok=True)
        self._background = background
        self.nbd: Json | None = None  # the section of that name; its sockets are there besides the usual one
        self._host_options = host_options
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._nats: NatsServer | None = None
        self._client: PlainClient | None = None
        self._ports: tuple[int, int] | None = None

    # ------------------------------------------------------------------ as a whole

    def start(self) -> "System":
        """Start everything, and return when it serves."""
        self.start_nats()
        self.create_streams()
        self._client = PlainClient(self._background, self.url, self.connect_plainly)
        self._write_config()
        for service in SERVICES:
            self.start_service(service, wait=False)
        for service in SERVICES:
            self.wait_ready(service)
        return self

    def close(self) -> None:
        """End everything, in no gentle way: what a clean stop does has tests of its own."""
        for process in self._processes.values():
            _end(process)
        if self._client is not None:
            self._client.close()
        if self._nats is not None:
            self.stop_nats()

    @property
    def client(self) -> PlainClient:
        assert self._client is not None, "the system was not started"
        return self._client

    # ------------------------------------------------------------------ NATS

    @property
    def url(self) -> str:
        assert self._nats is not None
        return self._nats.url

    def start_nats(self) -> None:
        """Start the server; again at the same address."""
        port, monitor_port = self._ports or (None, None)
        server = self._background.run(
            start_server(self.folder / "nats", port=port, monitor_port=monitor_port),
            timeout_s=READY_TIMEOUT_S,
        )
        self._nats = server
        self._ports = _port(server.url), _port(server.monitor_url)

    def stop_nats(self) -> None:
        assert self._nats is not None
        self._background.run(self._nats.stop(), timeout_s=STOP_TIMEOUT_S)

    def kill_nats(self) -> None:
        """SIGKILL, of one that may have ended already."""
        assert self._nats is not None
        with contextlib.suppress(ProcessLookupError):  # dead, and nobody has been told yet
            if not self._nats.exited.is_set():
                os.kill(self._nats.pid, signal.SIGKILL)
        self.stop_nats()

    @property
    def nats_pid(self) -> int:
        assert self._nats is not None
        return self._nats.pid

    @property
    def is_nats_running(self) -> bool:
        return self._nats is not None and not self._nats.exited.is_set()

    def until_subscribed(self, subject: str) -> None:
        """Wait until somebody listens on exactly this subject; the server's monitoring page says so when it is asked."""
        assert self._nats is not None
        end = time.monotonic() + READY_TIMEOUT_S
        page = f"{self._nats.monitor_url}/connz?subs=true"
        while True:
            with urllib.request.urlopen(page, timeout=READY_TIMEOUT_S) as answer:
                connections = json.load(answer)["connections"]
            if any(subject in each.get("subscriptions_list", ()) for each in connections):
                return
            assert time.monotonic() < end, f"nobody listens on {subject}"
            time.sleep(ASK_AGAIN_S)

    def create_streams(self) -> None:
        """Make the streams that a new server lacks."""
        self._background.run(self._create_streams(), timeout_s=READY_TIMEOUT_S)

    async def _create_streams(self) -> None:
        async with connected(self.url, name="bootstrap", clock=SystemClock()) as bus:
            await bootstrap(bus)

    # ------------------------------------------------------------------ services

    def start_service(
        self, service: str, *, name: str = "", wait: bool = True, under: Sequence[str] = ()
    ) -> None:
        """Start one; under another name, one more of its kind; `under` a program that runs it."""
        name = name or service
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [
                    *under,
                    sys.executable,
                    "-m",
                    f"services.{service}",
                    "--config",
                    str(self.config_of(service)),
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_ready(service)

    def wait_ready(self, service: str) -> None:
        """Return when a service answers. It tells nobody when it is ready, so it is asked."""
        self._background.run(self._until_ready(service), timeout_s=READY_TIMEOUT_S + 5)

    async def _until_ready(self, service: str) -> None:
        subject = self.subject_when_ready(service)
        client = await self.connect_plainly()
        try:
            end = time.monotonic() + READY_TIMEOUT_S
            while time.monotonic() < end:
                assert self._processes[service].poll() is None, f"{service} ended: {self.log(service)}"
                try:
                    await client.request(subject, b"", timeout=1)
                except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                    await asyncio.sleep(ASK_AGAIN_S)
                else:
                    return
        finally:
            await client.close()
        raise AssertionError(f"{service} is not ready: {self.log(service)}")

    def subject_when_ready(self, service: str) -> str:
        """What a service answers once it is ready."""
        return (
            f"cutover.host.{HOST}.status"
            if service == CLONING
            else f"$SRV.PING.cutover-{service.replace('_', '-')}"
        )

    def stop_service(self, service: str) -> int:
        """SIGTERM; the exit status."""
        self.ask_to_stop(service)
        return self.until_gone(service)

    def ask_to_stop(self, service: str) -> None:
        """SIGTERM, without waiting for what comes of it."""
        self._processes[service].terminate()

    def until_gone(self, service: str) -> int:
        """The exit status, once there is one."""
        return self._processes[service].wait(STOP_TIMEOUT_S)

    def kill_service(self, service: str) -> None:
        """SIGKILL."""
        process = self._processes[service]
        process.kill()
        process.wait(STOP_TIMEOUT_S)

    def signal_service(self, service: str, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT."""
        self._processes[service].send_signal(number)

    def mend(self) -> None:
        """Have every service run and serve again, whatever a test has done to it."""
        for service in SERVICES:
            if self._processes[service].poll() is None:
                self.signal_service(service, signal.SIGCONT)
            else:
                self.start_service(service, wait=False)
        for service in SERVICES:
            self.wait_ready(service)

    def pid(self, service: str) -> int:
        return self._processes[service].pid

    def is_running(self, service: str) -> bool:
        return self._processes[service].poll() is None

    def log(self, service: str) -> str:
        """What a service has said, over all its lives."""
        return (self.folder / f"{service}.log").read_text()

    def until_log(self, service: str, words: str, *, timeout_s: float) -> None:
        """Wait until a service has said something. A log is a file, which tells nobody that it grows."""
        end = time.monotonic() + timeout_s
        while words not in self.log(service):
            assert time.monotonic() < end, f"{service} has not said {words!r}: {self.log(service)}"
            time.sleep(ASK_AGAIN_S)

    # ------------------------------------------------------------------ what it has

    def config_of(self, service: str) -> Path:
        """The configuration that a service is started with."""
        assert service in SERVICES
        return self.config

    def environment(self) -> dict[str, str]:
        """Of the operator."""
        return {"CUTOVER_NATS_URL": self.url}

    async def connect_plainly(self) -> Client:
        """A connection of a stock client."""
        return await nats.connect(self.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)

    @property
    def config(self) -> Path:
        return self.folder / "services.toml"

    @property
    def socket(self) -> Path:
        return self.state_dir / "nbd.sock"

    def export(self, name: str) -> str:
        """A volume's URI, as an application is told it."""
        return f"nbd+unix:///{name}?socket={self.socket}"

    def witness(self, name: str) -> Path:
        """The witness file of a migration."""
        return self.state_dir / "witnesses" / f"{name}.witness"

    def witnesses(self) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in (self.state_dir / "witnesses").iterdir()}

    def host_status(self) -> Json:
        """What the host says of its migrations, without what changes by itself."""
        status = self.client.ask(f"cutover.host.{HOST}.status").accepted()
        for migration in status["migrations"]:
            del migration["at"]
        return status

    def set_up(self, name: str, source: Path | str, target: Path | str, **fields: object) -> Json:
        """Begin a migration."""
        return self.client.command("setup", name, source=str(source), target=str(target), host=HOST, **fields)

    def clean_up(self, name: str) -> None:
        """End a migration, whatever state it is in."""
        status = self.client.query(name)
        if status["state"] not in {"setup", "committed"}:
            self.client.command("abort" if status["authority"] == "source" else "commit", name)
        self.client.until(
            name, lambda each: each["state"] in {"setup", "committed"} and not each["error_flag"]
        )
        self.client.command("cleanup", name, disconnect=True)

    def clean_up_all(self) -> None:
        """End every migration."""
        for migration in self.client.ask("cutover.control.list").accepted()["migrations"]:
            self.clean_up(migration["name"])

    def cutover(self, *arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run the operator's command."""
        return subprocess.run(
            [sys.executable, "-m", "services.console", *arguments],
            cwd=ROOT,
            env=os.environ | self.environment() | {"COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def _write_config(self) -> None:
        assert self._nats is not None
        host: Json = {
            "name": HOST,
            "state_dir": str(self.state_dir),
            "allowed_devices": [f"{self.data}/**", "/dev/loop*", f"nbd+unix:///*?socket={self.data}/**"],
        }
        sections = {
            "nats": {"url": self._nats.url, "monitor_url": self._nats.monitor_url},
            "host": host | self._host_options,
        }
        if self.nbd is not None:
            sections["nbd"] = self.nbd | {"listen": [f"unix://{self.socket}", *self.nbd["listen"]]}
        lines: list[str] = []
        for section, values in sections.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        self.config.write_text("\n".join(lines) + "\n")


@contextmanager
def running_system(
    background: Background, nbd: Json | None = None, **host_options: object
) -> Iterator[System]:
    """A system in a folder of its own, with a short path: a Unix socket's holds 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="cutover-", dir="/tmp"))
    system = System(folder, background, **host_options)
    system.nbd = nbd
    try:
        yield system.start()
    finally:
        system.close()
        shutil.rmtree(folder)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait(STOP_TIMEOUT_S)


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
