"""The certificate that a NATS server has shown on a connection, and until when it is good."""

import ssl

from shared.bus.connection import Bus


def certificate_not_after(bus: Bus) -> float | None:
    """In seconds since 1970; None without TLS, or without a connection."""
    transport = bus.client._transport  # noqa: SLF001 - nats-py shows the connection nowhere else
    writer = getattr(transport, "_io_writer", None)
    secured = writer.get_extra_info("ssl_object") if writer is not None else None
    shown = secured.getpeercert() if isinstance(secured, ssl.SSLObject) else None
    not_after = shown.get("notAfter") if shown else None
    return float(ssl.cert_time_to_seconds(not_after)) if isinstance(not_after, str) else None
