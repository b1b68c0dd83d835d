"""Sockets that clients connect to: a Unix socket, TCP, or what was inherited (LISTEN_FDS).

It must not know NBD, nor who serves the clients that it accepts, nor what is asked of them.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path

from services.write_cloning.export.errors import (
    ActivationError,
    AddressError,
    SocketInUseError,
    SocketPathError,
)
from services.write_cloning.export.rights import NOBODY_ELSE, Rights
from shared.config.addresses import UNIX_PATH_BYTES_MAX

log = logging.getLogger(__name__)

_BACKLOG = 128
_FIRST_INHERITED_FD = 3  # sd_listen_fds(3)
_MAX_INHERITED = 64
_OUR_MISTAKE = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})
_RETRY_SECONDS = 1.0


class Listener:
    """One listening socket, and the file that stands for it if it is ours to remove."""

    def __init__(self, listening: socket.socket, path: Path | None = None) -> None:
        self._socket = listening
        self._path = path
        self._inode = path.stat().st_ino if path is not None else None
        listening.setblocking(False)

    @property
    def address(self) -> str:
        """Where clients find it."""
        name = self._socket.getsockname()
        if self._socket.family == socket.AF_UNIX:
            return str(name)
        return f"[{name[0]}]:{name[1]}" if self._socket.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"

    @property
    def is_tcp(self) -> bool:
        """Whether others than those with rights to a file can reach it."""
        return self._socket.family != socket.AF_UNIX

    @property
    def reachable_address(self) -> str:
        """Where clients elsewhere find it: this machine's name, if it listens on all of its addresses."""
        if self._socket.family in {socket.AF_INET, socket.AF_INET6}:
            host, port = self._socket.getsockname()[:2]
            if ipaddress.ip_address(host).is_unspecified:
                return f"{socket.gethostname()}:{port}"
        return self.address

    async def accept(self, on_client: Callable[[socket.socket], None]) -> None:
        """Hand over every client that connects, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except ConnectionAbortedError:
                continue  # it was gone before we looked
            except OSError as error:
                if error.errno in _OUR_MISTAKE:
                    raise
                # Out of descriptors or memory: the client stays in the queue, and without a pause this would spin.
                log.warning("no client can be accepted on %s: %s", self.address, error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            on_client(connection)

    async def serve(self, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Server:
        """Have the loop itself serve whoever connects, until what this returns is closed."""
        return await asyncio.get_running_loop().create_unix_server(protocol, sock=self._socket)

    def close(self) -> None:
        """Stop listening; the socket's file goes if it is still the one that we made."""
        self._socket.close()
        if self._path is None:
            return
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            log.info("%s was removed by somebody else", self._path)


def listen_unix(path: Path, rights: Rights = NOBODY_ELSE) -> Listener:
    """Listen on a Unix socket that only this user can connect to, or who is given rights. A dead server's file is replaced.

    Raises:
        SocketPathError: the path is too long, something else is there, or its folder is missing or does not allow it.
        SocketInUseError: somebody listens there.
        SocketRightsError: the rights cannot be given.
    """
    length = len(os.fsencode(path))
    if length > UNIX_PATH_BYTES_MAX:
        raise SocketPathError(
            f"{path}: a socket's path has at most {UNIX_PATH_BYTES_MAX} bytes, not {length}"
        )
    try:
        return _bound(path, rights)
    except FileNotFoundError:
        raise SocketPathError(f"there is no folder {path.parent}") from None
    except OSError as error:
        raise SocketPathError(f"{path}: {error.strerror}") from error


def _bound(path: Path, rights: Rights) -> Listener:
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode of the descriptor becomes the mode of the file, so that there is no moment of a wider one.
        os.fchmod(listening.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        listening.bind(os.fspath(path))
        try:
            rights.grant(path)
            listening.listen(_BACKLOG)
        except BaseException:
            path.unlink()
            raise
        return Listener(listening, path)
    except BaseException:
        listening.close()
        raise


def listen_tcp(host: str, port: int) -> Listener:
    """Listen on a TCP port of one of this host's addresses; port 0 picks a free one.

    Raises:
        AddressError: it is no address, or not one of this host.
        SocketInUseError: somebody listens there.
    """
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise AddressError(f"{host!r} is not an address") from None
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004 (IPv6)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # or [::] would take the port of 0.0.0.0, too
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((str(address), port))
        listening.listen(_BACKLOG)
        return Listener(listening)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise SocketInUseError(f"somebody listens on {host} port {port} already") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise AddressError(f"{host} is not an address of this host") from error
        raise


def are_handed_down(environment: Mapping[str, str], pid: int) -> bool:
    """Whether a parent has left sockets for this process."""
    return environment.get("LISTEN_PID") == str(pid) and "LISTEN_FDS" in environment


def inherited_listeners(environment: MutableMapping[str, str], pid: int) -> list[Listener]:
    """Take the listening sockets that a parent left for this process (LISTEN_FDS), or none.

    The variables are removed, so that no child takes them for its own.

    Raises:
        ActivationError: the variables make no sense, or a descriptor is not a listening stream socket.
    """
    is_ours = are_handed_down(environment, pid)
    environment.pop("LISTEN_PID", None)
    count_text = environment.pop("LISTEN_FDS", None)
    environment.pop("LISTEN_FDNAMES", None)
    if not is_ours or count_text is None:
        return []
    if not count_text.isdecimal() or not 1 <= int(count_text) <= _MAX_INHERITED:
        raise ActivationError(f"LISTEN_FDS={count_text!r} is not a number from 1 to {_MAX_INHERITED}")
    return [_inherit(_FIRST_INHERITED_FD + index) for index in range(int(count_text))]


def _inherit(fd: int) -> Listener:
    try:
        listening = socket.socket(fileno=fd)
    except OSError as error:
        raise ActivationError(f"descriptor {fd} is no socket: {error.strerror}") from error
    os.set_inheritable(fd, False)
    is_listening = bool(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if listening.type != socket.SOCK_STREAM or not is_listening:
        listening.detach()  # not ours to close
        raise ActivationError(f"descriptor {fd} is not a listening stream socket")
    return Listener(listening)


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a server that is no more."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketPathError(f"{path} is there already, and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        error = probe.connect_ex(os.fspath(path))
    if error != errno.ECONNREFUSED:
        raise SocketInUseError(f"somebody listens on {path} already")
    path.unlink()
