"""Until when the certificate of a NATS server is good: by the connection that there is, and by one that is made for it."""

import asyncio
import datetime as dt
import os
import signal
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from shared.bus.presented import certificate_not_after, not_after_now
from shared.bus.server import NatsServer
from shared.clock import SystemClock
from shared.config.model import NatsConfig
from tests.support.buses import NatsWiring
from tests.support.installations import Installation, make_installation

PATIENCE_S = 10.0


def renew(installation: Installation, *, days: int) -> float:
    """Put another certificate in the place of the server's; when it expires."""
    tls = installation.folder / "tls"
    authority = x509.load_pem_x509_certificate((tls / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((tls / "ca-key.pem").read_bytes(), None)
    old = x509.load_pem_x509_certificate((tls / "nats.pem").read_bytes())
    builder = x509.CertificateBuilder(
        issuer_name=authority.subject,
        subject_name=old.subject,
        public_key=old.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=old.not_valid_before_utc,
        not_valid_after=dt.datetime.now(dt.UTC) + dt.timedelta(days=days),
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    new = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    (tls / "nats.pem").write_bytes(new.public_bytes(serialization.Encoding.PEM))
    return new.not_valid_after_utc.timestamp()


async def until_shown(installation: Installation, server: NatsServer, wanted: float) -> None:
    os.kill(server.pid, signal.SIGHUP)
    async with asyncio.timeout(PATIENCE_S):
        while await not_after_now(installation.config("monitor"), SystemClock()) != wanted:
            pass  # a server tells nobody that it has read its files again


async def test_certificate_that_was_renewed_is_seen_though_the_connection_has_the_old_one(
    tmp_path: Path,
) -> None:
    """Failing, the alert about a certificate goes on until monitoring is restarted, or never comes."""
    installation = make_installation(tmp_path / "etc", ["h1"])
    old = x509.load_pem_x509_certificate((installation.folder / "tls/nats.pem").read_bytes())
    async with installation.server() as server, installation.connect("bootstrap") as bus:
        assert certificate_not_after(bus) == old.not_valid_after_utc.timestamp()
        await until_shown(installation, server, renew(installation, days=10))
        assert certificate_not_after(bus) == old.not_valid_after_utc.timestamp()


async def test_connection_without_tls_has_none(nats: NatsWiring) -> None:
    assert await not_after_now(NatsConfig(url=nats.url), SystemClock()) is None
