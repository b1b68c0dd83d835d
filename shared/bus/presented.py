"""The certificate that a NATS server has shown on a connection, and until when it is good."""

import ssl

from shared.bus.connection import Bus, connected
from shared.clock import Clock
from shared.config.model import NatsConfig


def certificate_not_after(bus: Bus) -> float | None:
    """In seconds since 1970; None without TLS, or without a connection."""
    transport = bus.client._transport  # noqa: SLF001 - nats-py shows the connection nowhere else
    writer = getattr(transport, "_io_writer", None)
    secured = writer.get_extra_info("ssl_object") if writer is not None else None
    shown = secured.getpeercert() if isinstance(secured, ssl.SSLObject) else None
    not_after = shown.get("notAfter") if shown else None
    return float(ssl.cert_time_to_seconds(not_after)) if isinstance(not_after, str) else None


async def not_after_now(config: NatsConfig, clock: Clock) -> float | None:
    """The same of the certificate that the server shows by now: a connection keeps to the one that it began with.

    Raises:
        ConfigError: a file that the configuration names is no use.
        Refusal: nobody can connect at present.
    """
    async with connected(config, name="monitoring", clock=clock) as fresh:
        return certificate_not_after(fresh)
