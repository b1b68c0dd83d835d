"""Looks at this machine for the host that the configuration makes of it. What it tries leaves nothing behind."""

import os
import resource
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from services.console.doctor.facts import MachineFacts, SocketLook, StateLook
from services.console.doctor.io_uring import why_not_io_uring
from services.console.doctor.looking_at_devices import look_at_pattern
from services.console.doctor.looking_at_lock import holder_of
from services.console.host_here import ask
from shared.accounts import Kind, UnknownAccountError, number_of
from shared.config.addresses import UNIX_PATH_BYTES_MAX
from shared.config.model import Config, HostConfig, NbdConfig
from shared.earlier_state import SUFFIX, WITNESSES, earlier_state
from shared.messages.local import LocalStatus, local_socket
from shared.migration.names import is_valid_name
from shared.migration.refusals import Refusal
from shared.nbd.constants import GREETING_MAGIC

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
# Of the second version of control groups, and of the first; without a limit that is `max`, and more than any machine has.
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_CONNECT_TIMEOUT_S = 1.0
_GREETING_TIMEOUT_S = 2.0  # a host that is busy is no other server
_GREETING = GREETING_MAGIC.to_bytes(8)
_READ_BYTES = 4096  # more than any greeting has


def look_at_machine(config: Config) -> MachineFacts | None:
    """Everything that the checks of a host need; None where the configuration makes none of this machine."""
    host = config.host
    if host is None:
        return None
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MachineFacts(
        host=host,
        why_not_io_uring=why_not_io_uring(),
        patterns=tuple(look_at_pattern(pattern) for pattern in host.allowed_devices),
        state=replace(
            _look_at_state(Path(host.state_dir)),
            witnesses=_witnesses(Path(host.state_dir)),
            earlier=earlier_state(Path(host.state_dir), host.name),
            locked_by=holder_of(Path(host.state_dir) / "lock"),
        ),
        own_word=_own_word(host),
        sockets=tuple(_look_at_socket(address, Path(host.state_dir)) for address in _addresses(config, host)),
        account_troubles=tuple(_account_troubles(config.nbd)),
        memory_bytes=_memory_bytes(),
        descriptors_max=1 << 30 if hard == resource.RLIM_INFINITY else hard,
    )


def _own_word(host: HostConfig) -> LocalStatus | None:
    """What the host says of itself, if it runs on this machine; nothing where nobody does, or somebody else."""
    try:
        told = ask(local_socket(Path(host.state_dir)))
    except (OSError, Refusal):
        return None
    return told if told.host == host.name else None


def _addresses(config: Config, host: HostConfig) -> tuple[str, ...]:
    return config.nbd.listen or (f"unix://{host.state_dir}/nbd.sock",)  # the service's own choice


# ------------------------------------------------------------------------ the state directory


def _look_at_state(path: Path) -> StateLook:
    try:
        status = path.stat()
    except FileNotFoundError:
        return _look_at_missing(path)
    except OSError as error:
        return StateLook(path=str(path), trouble=f"cannot be looked at: {error.strerror}")
    if not stat.S_ISDIR(status.st_mode):
        return StateLook(path=str(path), trouble="is no folder")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return StateLook(path=str(path), trouble="cannot be written by this user")
    space = os.statvfs(path)
    sync_s, sync_trouble = _try_sync(path)
    return StateLook(
        path=str(path),
        mode=stat.S_IMODE(status.st_mode),
        is_in_memory=_filesystem_of(path) in _IN_MEMORY,
        free_bytes=space.f_bavail * space.f_frsize,
        sync_s=sync_s,
        sync_trouble=sync_trouble,
    )


def _witnesses(state_dir: Path) -> tuple[str, ...]:
    """Whose there are; what stands in them is not read. Where we may not look, that is told of the folder."""
    try:
        found = sorted((state_dir / WITNESSES).glob(f"*{SUFFIX}"))
    except OSError:
        return ()
    names = (file.name.removesuffix(SUFFIX) for file in found)
    return tuple(name for name in names if is_valid_name(name))  # as the host, which passes over the others


def _look_at_missing(path: Path) -> StateLook:
    """Whether the service could make it. It is tried: rights tell too little, root may write /proc."""
    parent = next(folder for folder in path.parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".cutover-doctor-", dir=parent):
            trouble = ""
    except OSError as error:
        trouble = f"is not there, and no folder can be made in {parent}: {error.strerror}"
    space = os.statvfs(parent)
    return StateLook(
        path=str(path),
        is_there=False,
        trouble=trouble,
        is_in_memory=_filesystem_of(parent) in _IN_MEMORY,
        free_bytes=space.f_bavail * space.f_frsize,
    )


def _try_sync(path: Path) -> tuple[float | None, str]:
    """Make a file without a name durable: it is gone when it is closed, whatever happens."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(4096))
            file.flush()
            began_s = time.monotonic()
            os.fsync(file.fileno())
            return time.monotonic() - began_s, ""
    except OSError as error:
        return None, error.strerror or str(error)


def _filesystem_of(path: Path) -> str:
    """The kind of file system, from the longest mount point above."""
    real, found = os.path.realpath(path), ("", "")
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        point, kind = fields[4], fields[fields.index("-") + 1]
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1]


# ------------------------------------------------------------------------ sockets and limits


def _account_troubles(config: NbdConfig) -> Iterator[str]:
    """By the service's words."""
    for account, key, kind in (
        (config.socket_owner, "nbd.socket_owner", Kind.USER),
        (config.socket_group, "nbd.socket_group", Kind.GROUP),
    ):
        try:
            number_of(account, key, kind)
        except UnknownAccountError as error:
            yield str(error)


def _look_at_socket(address: str, state_dir: Path) -> SocketLook:
    scheme, _, place = address.partition("://")
    if scheme == "unix":
        return _look_at_unix(address, Path(place), state_dir)
    host, _, port = place.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if why := _why_not_ours(family, host.strip("[]")):
        return SocketLook(address=address, trouble=f"cannot be listened on: {why}")
    return _look_at_listener(address, family, (host.strip("[]"), int(port)))


def _look_at_unix(address: str, path: Path, state_dir: Path) -> SocketLook:
    length = len(os.fsencode(path))
    if length > UNIX_PATH_BYTES_MAX:
        return SocketLook(
            address=address,
            trouble=f"has a path of {length} bytes, and a socket's has {UNIX_PATH_BYTES_MAX} at most",
        )
    if path.parent == state_dir and not path.parent.exists():
        return SocketLook(address=address)  # the host makes it; whether it can is told of the state directory
    if not path.parent.is_dir():
        return SocketLook(address=address, trouble=f"cannot be listened on: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return SocketLook(
            address=address, trouble=f"cannot be listened on: this user may not write {path.parent}"
        )
    if path.exists() and not path.is_socket():
        return SocketLook(
            address=address, trouble="cannot be listened on: something else is there, and no socket"
        )
    return _look_at_listener(address, socket.AF_UNIX, str(path))


def _why_not_ours(family: socket.AddressFamily, host: str) -> str:
    """Why nothing can listen on an address of this machine; empty where it can. No port is taken that somebody wants."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _look_at_listener(address: str, family: socket.AddressFamily, where: str | tuple[str, int]) -> SocketLook:
    """Who accepts connections there, if anybody does. What he sees is a client that leaves at once.

    All that he says is read: a connection that is closed with something unread in it is reset, which a host's log tells of.
    """
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        if probe.connect_ex(where) != 0:
            return SocketLook(address=address)
        probe.settimeout(_GREETING_TIMEOUT_S)
        try:
            greeting = probe.recv(_READ_BYTES)[: len(_GREETING)]
        except OSError:
            greeting = b""
        return SocketLook(
            address=address, is_taken=True, is_nbd=_GREETING.startswith(greeting) if greeting else None
        )


def _memory_bytes() -> int:
    """What this machine has, or what its control group leaves of it."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits()])


def _limits() -> Iterator[int]:
    for file in _CGROUP_LIMITS:
        try:
            limit = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdecimal():
            yield int(limit)
