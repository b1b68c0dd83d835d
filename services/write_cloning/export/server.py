"""Volumes offered by name, and the clients that are connected to them. Several exports share the listening sockets.

It must not know what a migration is: it is told what to export, whom to disconnect, and when to stop.
"""

import asyncio
import logging
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Self

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.export.alertness import Alertness
from services.write_cloning.export.client import Client, name_peer
from services.write_cloning.export.connection import Connection
from services.write_cloning.export.errors import ExportNameError, ExportPoolError
from services.write_cloning.export.exported import ExportedVolume
from services.write_cloning.export.limits import INLINE_PAYLOAD_BYTES, RECEIVE_BYTES, Limits
from services.write_cloning.export.line import ClientLeftError, TlsRefusedError
from services.write_cloning.export.listener import Listener
from services.write_cloning.export.negotiation import Negotiated, negotiate
from services.write_cloning.export.sweeps import Sweeps
from services.write_cloning.export.tls import Tls
from shared.clock import Clock
from shared.logs.about import about
from shared.nbd.constants import (
    ALLOCATION_CONTEXT,
    DEFAULT_PREFERRED_BLOCK_BYTES,
    LARGEST_MINIMUM_BLOCK_BYTES,
    MAX_PAYLOAD_BYTES,
    REGION_CONTEXT,
    TransmissionFlag,
)
from shared.nbd.errors import NbdPeerError
from shared.nbd.exports import BlockSizes, ExportDescription
from shared.nbd.server_handshake import ServerHandshake, TlsPolicy

log = logging.getLogger(__name__)

_ABILITIES = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
    | TransmissionFlag.SEND_FAST_ZERO
    | TransmissionFlag.SEND_CACHE
    | TransmissionFlag.CAN_MULTI_CONN  # there is one volume behind all connections, and no cache in between
)
_CONTEXTS = (ALLOCATION_CONTEXT, REGION_CONTEXT)


@dataclass(slots=True)
class _Export:
    """A volume under its name, and who uses it."""

    description: ExportDescription
    volume: ExportedVolume
    pool: BufferPool
    connections: dict[Connection, Client] = field(default_factory=dict)
    left: asyncio.Event = field(default_factory=asyncio.Event)  # set whenever a client has gone

    async def disconnect(self) -> None:
        """Hang up on those who are connected now, and wait until they are gone."""
        leaving = set(self.connections)
        for connection in leaving:
            connection.close()
        while leaving & set(self.connections):
            self.left.clear()
            await self.left.wait()


class ExportServer:
    """Use it as an async context; leaving it closes it. Everything that it starts lives in its task group."""

    def __init__(self, clock: Clock, limits: Limits | None = None) -> None:
        """`clock` only tells people since when a client is connected."""
        self._clock = clock
        self._limits = limits or Limits()
        self._exports: dict[str, _Export] = {}
        self._tasks = asyncio.TaskGroup()
        self._accepting: dict[Listener, asyncio.Task[None]] = {}
        self._handshakes: dict[socket.socket, tuple[asyncio.Task[None], ServerHandshake]] = {}
        self._alertness = Alertness(asyncio.get_running_loop())
        self._sweeps = Sweeps(self._limits.sweep_seconds, self._connections)
        self._is_shutting_down = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.close()
        finally:
            for listener in list(self._accepting):
                self.stop_listening(listener)
            self._sweeps.stop()
            await self._tasks.__aexit__(kind, error, trace)

    # ---------------------------------------------------------------------------------------------------------- exports

    def add(
        self,
        name: str,
        volume: ExportedVolume,
        pool: BufferPool,
        *,
        description: str = "",
        read_only: bool = False,
    ) -> None:
        """Offer a volume from now on.

        Its clients' payloads live in `pool`. Volumes that share a pool share its fate: give each its own where one that
        hangs must not starve the others.

        Raises:
            ExportNameError: the name is taken.
            ExportPoolError: the pool is too small for the number of connections.
        """
        if name in self._exports:
            raise ExportNameError(f"an export named {name!r} is there already")
        told = _describe(name, volume, description, read_only=read_only)
        told = replace(told, blocks=replace(told.blocks, maximum=_largest_payload(pool, self._limits)))
        self._exports[name] = _Export(told, volume, pool)

    async def remove(self, name: str) -> None:
        """Offer it no more, and hang up on its clients after what they have under way.

        Raises:
            ExportNameError: there is none of that name.
        """
        export = self._find(name)
        del self._exports[name]
        await export.disconnect()

    def clients(self, name: str) -> Sequence[Client]:
        """Who is connected to an export, in the order of their coming.

        Raises:
            ExportNameError: there is none of that name.
        """
        return list(self._find(name).connections.values())

    async def disconnect(self, name: str) -> None:
        """Hang up on every client of an export, after what they have under way; they may come back.

        Raises:
            ExportNameError: there is none of that name.
        """
        await self._find(name).disconnect()

    # -------------------------------------------------------------------------------------------------------- listening

    def listen(self, listener: Listener, tls: Tls | None = None) -> None:
        """Accept clients from a listening socket, which is ours to close from now on; with `tls` only those who do TLS."""
        welcome = partial(self._welcome, tls)
        self._accepting[listener] = self._tasks.create_task(listener.accept(welcome))

    def stop_listening(self, listener: Listener) -> None:
        """Accept no more clients from it, and close it."""
        self._accepting.pop(listener).cancel()
        listener.close()

    def begin_shutdown(self) -> None:
        """Let nobody begin any more; who is connected stays, and hears from its volume that it shuts down."""
        self._is_shutting_down = True
        for _, handshake in self._handshakes.values():
            handshake.begin_shutdown()

    async def close(self) -> None:
        """Accept nobody any more, finish what is under way, hang up on everyone. Safe to call again."""
        for listener in list(self._accepting):
            self.stop_listening(listener)
        for task, _ in list(self._handshakes.values()):
            task.cancel()
        async with asyncio.TaskGroup() as leaving:
            for name in list(self._exports):
                leaving.create_task(self.remove(name))
        self._sweeps.stop()

    # ------------------------------------------------------------------------------------------------------- one client

    def _welcome(self, tls: Tls | None, connection: socket.socket) -> None:
        if len(self._handshakes) >= self._limits.handshakes:
            self._dismiss_oldest()
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        policy = TlsPolicy.OFF if tls is None else TlsPolicy.REQUIRED
        handshake = ServerHandshake(self._catalogue, policy)
        if self._is_shutting_down:
            handshake.begin_shutdown()
        task = self._tasks.create_task(self._serve(connection, handshake, tls))
        self._handshakes[connection] = (task, handshake)
        # Not in the task itself: one that is cancelled before it began would not get there.
        task.add_done_callback(lambda _: self._see_off(connection))

    def _see_off(self, connection: socket.socket) -> None:
        self._handshakes.pop(connection, None)
        connection.close()

    def _dismiss_oldest(self) -> None:
        """A client that negotiates is done in no time, so the one that came first is the likeliest to have nothing to say."""
        oldest = next(iter(self._handshakes))
        task, _ = self._handshakes.pop(oldest)
        task.cancel()
        log.warning("a client gave way in its handshake: %d others are in theirs", self._limits.handshakes)

    async def _serve(self, connection: socket.socket, handshake: ServerHandshake, tls: Tls | None) -> None:
        """A client's whole stay."""
        client = Client(name=name_peer(connection), connected_at=self._clock.now_rfc3339())
        negotiated = await self._negotiate(connection, handshake, tls, client)
        del self._handshakes[connection]
        if negotiated is not None:
            await self._transmit(negotiated, client)

    async def _negotiate(
        self, connection: socket.socket, handshake: ServerHandshake, tls: Tls | None, client: Client
    ) -> Negotiated | None:
        try:
            return await negotiate(connection, handshake, tls, self._limits.handshake_seconds)
        except ClientLeftError as error:
            log.debug("%s: %s", client.name, error)
        except TlsRefusedError as error:
            log.warning("%s was turned away by TLS: %s", client.name, error)
        except TimeoutError:
            log.warning("%s took too long over its handshake", client.name)
        except NbdPeerError as error:
            log.warning("%s broke the protocol in its handshake: %s", client.name, error)
        except OSError as error:
            log.info("%s was lost during its handshake: %s", client.name, error)
        return None

    async def _transmit(self, negotiated: Negotiated, client: Client) -> None:
        entered, wire, peer = negotiated
        if peer:
            client = replace(client, name=f"{peer} ({client.name})")
        name = entered.agreement.name
        export = self._exports.get(name)
        if export is None or export.description.size_bytes != entered.agreement.size_bytes:
            log.info("%s came to %s when it was being removed", client.name, name, extra=about(name))
            wire.close()
            return
        if len(export.connections) >= self._limits.connections:  # others came while it was told that it may
            log.warning(
                "%s was turned away: %s has all the clients that it may have",
                client.name,
                name,
                extra=about(name),
            )
            wire.close()
            return
        serving = Connection(
            wire,
            entered,
            export.volume,
            export.pool,
            self._limits,
            self._tasks.create_task,
            self._sweeps.begin,
            self._alertness,
        )
        export.connections[serving] = client
        log.info("%s is connected to %s", client.name, name, extra=about(name))
        try:
            await serving.run()
        finally:
            del export.connections[serving]
            export.left.set()
            log.info("%s is gone from %s: %s", client.name, name, serving.reason, extra=about(name))

    def _catalogue(self) -> Sequence[ExportDescription]:
        return [self._tell(export) for export in self._exports.values()]

    def _tell(self, export: _Export) -> ExportDescription:
        connected = len(export.connections)
        if connected < self._limits.connections:
            return export.description
        return replace(
            export.description, closed_because=f"{connected} clients are connected, which is the limit"
        )

    def _find(self, name: str) -> _Export:
        try:
            return self._exports[name]
        except KeyError:
            raise ExportNameError(f"there is no export named {name!r}") from None

    def _connections(self) -> Iterator[Connection]:
        return chain.from_iterable(export.connections for export in self._exports.values())


def _describe(name: str, volume: ExportedVolume, description: str, *, read_only: bool) -> ExportDescription:
    """Advertise what the volume prefers. The minimum must divide the size, or the last bytes were out of reach."""
    minimum = min(volume.alignment_bytes, LARGEST_MINIMUM_BLOCK_BYTES)
    while volume.size_bytes % minimum:
        minimum //= 2
    return ExportDescription(
        name=name,
        size_bytes=volume.size_bytes,
        flags=_ABILITIES | TransmissionFlag.READ_ONLY if read_only else _ABILITIES,
        description=description,
        blocks=BlockSizes(minimum=minimum, preferred=max(DEFAULT_PREFERRED_BLOCK_BYTES, minimum)),
        contexts=_CONTEXTS,
    )


def _largest_payload(pool: BufferPool, limits: Limits) -> int:
    """What a pool allows of a payload, so that nobody waits for ever.

    Every connection may hold a receive buffer while it waits for a payload's, and a payload may need twice its length.

    Raises:
        ExportPoolError: not even the smallest.
    """
    left = pool.budget_bytes - limits.connections * RECEIVE_BYTES
    largest = MAX_PAYLOAD_BYTES
    while largest > left // 2:
        largest //= 2
        if largest < INLINE_PAYLOAD_BYTES:
            raise ExportPoolError(
                f"a pool of {pool.budget_bytes} bytes is too small for {limits.connections} connections"
            )
    return largest
