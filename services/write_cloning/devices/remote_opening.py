"""Finds remote exports and opens them, or says exactly why not.

A connection is made only to what the host's config allows. Everything has one deadline: looking the name up, connecting, and
the handshake. A failure anywhere leaves no socket behind.

A server keeps no lock, so one is kept here: an export that this process has open is not opened a second time. Nothing keeps
another host, or another program, from using it at the same time; that is for the operator to see to (docs/OPERATING.md).

What tells one export from another is its URI, with the socket's real path, and its size. NBD gives an export no serial
number and no UUID: a server that begins to serve something else of that size under that name is not found out.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import replace

from services.write_cloning.devices import errors
from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.clerk import Clerk
from services.write_cloning.devices.remote import RemoteDevice
from services.write_cloning.devices.remote_connection import RemoteConnection
from services.write_cloning.devices.remote_uri import RemoteUri, parse_remote
from shared.migration.devices import DeviceIdentity, DeviceKind
from shared.nbd.client_handshake import ClientHandshake, Ended, Entered, Send
from shared.nbd.constants import ALLOCATION_CONTEXT, OptionReply, TransmissionFlag
from shared.nbd.errors import NbdPeerError, NegotiationFailedError

DEADLINE_S = 10.0
SECTOR_BYTES = 512
_HANDSHAKE_BYTES = 64 << 10


class RemoteExports:
    """The exports that this process has open."""

    def __init__(self, allowed: AllowedPaths) -> None:
        """Open what is allowed."""
        self._allowed = allowed
        self._in_use: set[str] = set()

    async def open(self, uri: str, *, writable: bool = True, deadline_s: float = DEADLINE_S) -> RemoteDevice:
        """Connect to an export.

        Raises:
            DeviceRefusedError: one of its kinds, each with a code.
        """
        where = await _canonical(uri, deadline_s)
        token = str(where)
        if not self._allowed.allows(token):
            leads = "" if token == uri else f", which is {token},"
            raise errors.PathNotAllowedError(f"{uri}{leads} is not allowed here; allowed: {self._allowed}")
        if token in self._in_use:
            raise errors.DeviceBusyError(f"{uri} is in use: this process has it open")
        self._in_use.add(token)
        try:
            connection, entered = await _connected(uri, where, deadline_s)
            try:
                return _device(
                    uri, token, connection, entered,
                    writable=writable, let_go=lambda: self._in_use.discard(token),
                )  # fmt: skip
            except BaseException:
                connection.close()
                raise
        except BaseException:
            self._in_use.discard(token)
            raise


async def same_export(uri: str, other_uri: str, *, deadline_s: float = DEADLINE_S) -> bool:
    """Whether two URIs name one export, as far as names tell: by links to a socket, or names of one address.

    Raises:
        DeviceRefusedError: one of them is not written as it must be.
    """
    one, other = await _canonical(uri, deadline_s), await _canonical(other_uri, deadline_s)
    if one == other:
        return True
    if one.export != other.export or one.port != other.port or not (one.host and other.host):
        return False
    return bool(await _addresses(uri, one, deadline_s) & await _addresses(other_uri, other, deadline_s))


async def _canonical(uri: str, deadline_s: float) -> RemoteUri:
    """The URI without symbolic links in its socket's path."""
    where = parse_remote(uri)
    if not where.socket_path:
        return where
    clerk = Clerk(f"look at {where.socket_path}")
    try:
        path = await clerk.call(lambda: os.path.realpath(where.socket_path), deadline_s=deadline_s)
    except TimeoutError:
        raise _hangs(uri, deadline_s) from None
    finally:
        clerk.dismiss()
    return replace(where, socket_path=path)


async def _addresses(uri: str, where: RemoteUri, deadline_s: float) -> set[str]:
    try:
        async with asyncio.timeout(deadline_s):
            found = await _looked_up(where)
    except (OSError, TimeoutError) as failure:
        raise errors.DeviceMissingError(f"{uri} cannot be found: {failure}") from None
    return {str(address[0]) for _, address in found}


async def _looked_up(where: RemoteUri) -> list[tuple[int, tuple[object, ...]]]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


# ---------------------------------------------------------------------------------------------------------- connecting


async def _connected(uri: str, where: RemoteUri, deadline_s: float) -> tuple[socket.socket, Entered]:
    try:
        async with asyncio.timeout(deadline_s):
            connection = await _reached(where)
            try:
                return connection, await _shaken_hands(connection, where)
            except BaseException:
                connection.close()
                raise
    except TimeoutError:
        raise _hangs(uri, deadline_s) from None
    except OSError as failure:
        raise _refusal(uri, failure) from failure
    except NegotiationFailedError as refused:
        raise _not_exported(uri, refused) from refused
    except NbdPeerError as violation:
        raise errors.NotADeviceError(f"{uri} is no NBD export: {violation}") from violation


async def _reached(where: RemoteUri) -> socket.socket:
    """A connected socket; of several addresses the first that answers.

    Raises:
        OSError: none does; the last reason.
    """
    if where.socket_path:
        return await _socket_to(socket.AF_UNIX, where.socket_path)
    failure = OSError(errno.ENOENT, "its host has no address")
    for family, address in await _looked_up(where):
        try:
            connection = await _socket_to(family, address)
        except OSError as error:
            failure = error
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return connection
    raise failure


async def _socket_to(family: int, address: str | tuple[object, ...]) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _shaken_hands(connection: socket.socket, where: RemoteUri) -> Entered:
    loop = asyncio.get_running_loop()
    handshake = ClientHandshake(where.export, [ALLOCATION_CONTEXT])
    while True:
        data = await loop.sock_recv(connection, _HANDSHAKE_BYTES)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "its server hangs up during the handshake")
        for event in handshake.receive(data):
            match event:
                case Send():
                    await loop.sock_sendall(connection, event.data)
                case Entered():
                    return event
                case Ended():
                    raise event.error


def _device(
    uri: str,
    token: str,
    connection: socket.socket,
    entered: Entered,
    *,
    writable: bool,
    let_go: Callable[[], None],
) -> RemoteDevice:
    agreement, block_bytes = entered.agreement, entered.blocks.minimum
    sector_bytes = max(SECTOR_BYTES, block_bytes)
    if writable and TransmissionFlag.READ_ONLY in agreement.flags:
        raise errors.DeviceReadOnlyError(f"{uri} is read-only: its server says so")
    if TransmissionFlag.SEND_FLUSH not in agreement.flags:
        raise errors.NoFlushError(
            f"{uri} has no flush: whether anything that its server has acknowledged is durable can never be known"
        )
    if not agreement.size_bytes:
        raise errors.DeviceEmptyError(f"{uri} has a size of zero")
    if agreement.size_bytes % sector_bytes:
        raise errors.DeviceSizeError(
            f"{uri} has {agreement.size_bytes} bytes, which is no multiple of {sector_bytes}"
        )
    return RemoteDevice(
        RemoteConnection(uri, connection, entered.early_bytes),
        agreement,
        DeviceIdentity(
            name=uri,
            kind=DeviceKind.REMOTE,
            token=token,
            size_bytes=agreement.size_bytes,
            logical_sector_bytes=sector_bytes,
        ),
        alignment_bytes=block_bytes,
        let_go=let_go,
    )


# ------------------------------------------------------------------------------------------------------------ refusals


def _hangs(uri: str, deadline_s: float) -> errors.DeviceHangsError:
    return errors.DeviceHangsError(f"{uri} did not answer within {deadline_s:g} s while it was opened")


def _not_exported(uri: str, refused: NegotiationFailedError) -> errors.DeviceRefusedError:
    if refused.reply == OptionReply.ERR_UNKNOWN:
        return errors.DeviceMissingError(f"{uri} does not exist: {refused}")
    if refused.reply == OptionReply.ERR_TLS_REQD:
        return errors.UriNotSupportedError(f"{uri} wants TLS, which devices cannot do yet: {refused}")
    return errors.DeviceUnusableError(f"{uri} cannot be used: {refused}")


_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})


def _refusal(uri: str, failure: OSError) -> errors.DeviceRefusedError:
    if isinstance(failure, socket.gaierror):
        return errors.DeviceMissingError(f"{uri} cannot be found: {failure.strerror}")
    if failure.errno in _MISSING:
        return errors.DeviceMissingError(f"{uri} cannot be reached: {failure.strerror}")
    if failure.errno in _FORBIDDEN:
        return errors.DeviceForbiddenError(f"{uri} may not be connected to by this user: {failure.strerror}")
    return errors.DeviceUnusableError(f"{uri} cannot be used: {failure.strerror or failure}")
