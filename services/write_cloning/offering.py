"""Where this host's volumes are found: the export server, as migrations see it."""

from urllib.parse import quote

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.export.errors import ExportNameError
from services.write_cloning.export.server import ExportServer
from services.write_cloning.volume.volume import Volume
from shared.messages.status import ConnectionView


class Offering:
    """Implements `Exports`. Each volume has a buffer pool of its own, so that one that hangs starves no other."""

    def __init__(
        self, server: ExportServer, address: str, inflight_budget_bytes: int, *, has_tls: bool = False
    ) -> None:
        """`address` is that of the socket that clients are told of: a path, or `HOST:PORT`, with TLS or without."""
        self._server = server
        self._address = address
        self._has_tls = has_tls
        self._inflight_budget_bytes = inflight_budget_bytes

    def add(self, name: str, volume: Volume) -> None:
        """See `Exports`."""
        pool = BufferPool(self._inflight_budget_bytes)
        self._server.add(name, volume, pool, description=f"Cutover migration {name}")

    async def remove(self, name: str) -> None:
        """See `Exports`."""
        await self._server.remove(name)

    def uri(self, name: str) -> str:
        """See `Exports`."""
        return export_uri(self._address, name, has_tls=self._has_tls)

    def connections(self, name: str) -> tuple[ConnectionView, ...]:
        """See `Exports`. Of a volume that is not offered any more, or not yet, there are none.

        The server is who knows: when it closes it withdraws every export, while migrations are still asked how they get on.
        """
        try:
            clients = self._server.clients(name)
        except ExportNameError:
            return ()
        return tuple(ConnectionView(peer=client.name, connected_at=client.connected_at) for client in clients)


def export_uri(address: str, name: str, *, has_tls: bool = False) -> str:
    """The URI by which NBD clients know an export (the NBD project's `doc/uri.md`)."""
    if address.startswith("/"):
        return f"nbd+unix:///{quote(name)}?socket={quote(address)}"
    return f"{'nbds' if has_tls else 'nbd'}://{address}/{quote(name)}"
