"""The folder that `cutover up` keeps everything in, and the lock that makes it the only one there."""

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from services.console.failures import ConsoleError
from shared.config.addresses import UNIX_PATH_BYTES_MAX

FOLDER_MODE = 0o700


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Where things are in it."""

    path: Path

    @property
    def nats(self) -> Path:
        """The NATS server's store: the journal."""
        return self.path / "nats"

    @property
    def host(self) -> Path:
        """The host's own state: witnesses."""
        return self.path / "host"

    @property
    def socket(self) -> Path:
        """The Unix socket of the NBD exports."""
        return self.path / "nbd.sock"

    @property
    def config(self) -> Path:
        """The configuration that the services run with; written anew by every `up`."""
        return self.path / "services.toml"

    @property
    def running(self) -> Path:
        """What `up` has running, as JSON; for people and for the refusal of a second one."""
        return self.path / "up.json"

    def log_of(self, service: str) -> Path:
        """Where a service's words go when there is no terminal for them."""
        return self.path / "logs" / f"{service}.log"


def default_path(environment: Mapping[str, str], *, is_root: bool) -> Path:
    """Where state is kept unless the operator says otherwise."""
    if is_root:
        return Path("/var/lib/cutover")
    base = environment.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "cutover"


def place(path: Path) -> StateDirectory:
    """Where the folder is to be; nothing is made.

    Raises:
        ConsoleError: its path is too long for the socket in it.
    """
    directory = StateDirectory(path.absolute())
    if len(os.fsencode(directory.socket)) > UNIX_PATH_BYTES_MAX:
        raise ConsoleError(
            "state-directory",
            f"{directory.socket} is too long for a Unix socket ({UNIX_PATH_BYTES_MAX} bytes at most): "
            "choose a shorter --state-dir.",
        )
    return directory


def prepare(directory: StateDirectory) -> None:
    """Make the folder and those inside it.

    Raises:
        ConsoleError: it cannot be made.
    """
    try:
        for folder in (directory.path, directory.nats, directory.host, directory.path / "logs"):
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise ConsoleError(
            "state-directory", f"{directory.path} cannot be used as state directory: {error}."
        ) from error


@contextmanager
def locked(directory: StateDirectory) -> Iterator[int]:
    """Hold the folder. Whoever inherits the descriptor holds it too: a service that was left behind keeps others out.

    Raises:
        ConsoleError: (`already-running`) someone else holds it.
    """
    descriptor = os.open(directory.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise
        raise ConsoleError("already-running", _held_by(directory)) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def nats_urls_of(path: Path) -> tuple[str, ...]:
    """Where the NATS server of what runs on a state directory is; nothing when nothing does."""
    running = _read_running(StateDirectory(path.absolute()))
    return (running.nats_url,) if running is not None and _is_alive(running.pid) else ()


@dataclass(frozen=True, slots=True)
class _Running:
    """What `up.json` tells."""

    pid: int
    nats_url: str
    services: dict[str, int]


def _read_running(directory: StateDirectory) -> _Running | None:
    try:
        told = orjson.loads(directory.running.read_bytes())
        services = {name: pid for name, pid in told["services"].items() if pid is not None}
        return _Running(told["pid"], told["nats_url"], services)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _held_by(directory: StateDirectory) -> str:
    running = _read_running(directory)
    if running is None:
        return f"{directory.path} is in use by another `cutover up`."
    if _is_alive(running.pid):
        who = f"another `cutover up`, process {running.pid}, with NATS at {running.nats_url}"
        return f"{directory.path} is in use by {who}."
    left = ", ".join(f"{name} {pid}" for name, pid in running.services.items() if _is_alive(pid))
    return (
        f"{directory.path} is in use by services whose `cutover up` has gone: {left}. "
        "End them with SIGTERM, write_cloning first, then start again."
    )
