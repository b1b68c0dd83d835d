"""Why there is no connection, told apart: each has another remedy. And what certificate the server shows while there is one."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from services.console.certificates import new_authority
from services.console.doctor.looking_at_bus import look_at_bus
from services.console.installation import HostPlan, Plan, files_of
from services.console.local_nats import any_port
from services.console.new_folder import write
from shared.bus.connection import connect
from shared.bus.server import nats_server
from shared.bus.unconnected import Unconnected, Why
from shared.clock import SystemClock
from shared.config.model import NatsConfig
from tests.support.buses import NatsWiring
from tests.support.installations import Installation

CLOCK = SystemClock()


@asynccontextmanager
async def installed(folder: Path, *, days_ago: int = 0) -> AsyncIterator[Installation]:
    """One that was made so many days ago, and its server."""
    plan = Plan(
        installed_at=PurePosixPath(folder),
        hosts=(HostPlan(name="h1"),),
        nats_hosts=("127.0.0.1",),  # so that it listens on other addresses, too
        nats_port=any_port(),
        monitor=f"127.0.0.1:{any_port()}",
        state_dir=PurePosixPath("/var/lib/cutover"),
    )
    write(folder, files_of(plan, datetime.now(UTC) - timedelta(days=days_ago)))
    installation = Installation(folder)
    async with nats_server(folder / "nats/run", text=installation.server_text):
        yield installation


async def why_not(config: NatsConfig) -> Why:
    with pytest.raises(Unconnected) as caught:
        await connect(config, name="t", clock=CLOCK, timeout_s=5)
    return caught.value.why


async def test_each_cause_is_told_apart(tmp_path: Path) -> None:
    async with installed(tmp_path / "etc") as here:
        config = here.config("operator")
        other = tmp_path / "other.pem"
        other.write_bytes(new_authority("another", datetime.now(UTC)).issued.certificate)
        strange = tmp_path / "strange.nk"
        async with installed(tmp_path / "more") as more:
            strange.write_text((more.folder / "secrets/operator.nk").read_text())
        port = config.url.rpartition(":")[2]
        for wrong, why in (
            (replace(config, tls_ca_file=str(other)), Why.AUTHORITY),
            (replace(config, url=f"tls://127.0.0.2:{port}"), Why.NAME),
            (replace(config, nkey_seed_file=str(strange)), Why.CREDENTIALS),
            (replace(config, nkey_seed_file=None), Why.CREDENTIALS),
            (replace(config, inbox_prefix="_INBOX_monitor"), Why.INBOX),
            (replace(config, url="tls://127.0.0.1:9"), Why.AWAY),
        ):
            assert await why_not(wrong) is why


async def test_an_expired_certificate_is_told_apart(tmp_path: Path) -> None:
    async with installed(tmp_path / "etc", days_ago=826) as here:
        assert await why_not(here.config("operator")) is Why.EXPIRED


async def test_a_server_without_tls_is_told_apart(nats: NatsWiring) -> None:
    assert await why_not(NatsConfig(url=nats.url.replace("nats://", "tls://"))) is Why.NO_TLS


@pytest.mark.parametrize("timeout_s", [0.5, 1.5])
async def test_what_is_no_nats_server_is_told(timeout_s: float) -> None:
    """Failing, there is no reason at all: whatever listens there waits for us to begin."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"tls://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            Unconnected, match=r"cannot be reached: nothing there has spoken as a NATS server"
        ):
            await connect(NatsConfig(url=url), name="t", clock=CLOCK, timeout_s=timeout_s)


async def test_a_certificate_of_another_name_is_told_in_one_sentence(tmp_path: Path) -> None:
    async with installed(tmp_path / "etc") as here:
        config = here.config("operator")
        other = replace(config, url=f"tls://127.0.0.2:{config.url.rpartition(':')[2]}")
        with pytest.raises(Unconnected, match=r"[^.]\.$"):
            await connect(other, name="t", clock=CLOCK)


@pytest.mark.parametrize("role", ["operator", "write_cloning-h1", "state_control"])
async def test_every_role_sees_how_long_the_server_s_certificate_is_good_for(
    tmp_path: Path, role: str
) -> None:
    async with installed(tmp_path / "etc", days_ago=815) as here:
        found = await look_at_bus(here.config(role), CLOCK)
    assert found.certificate_days is not None
    assert 9 < found.certificate_days < 11


async def test_a_server_without_tls_shows_no_certificate(nats: NatsWiring) -> None:
    assert (await look_at_bus(NatsConfig(url=nats.url), CLOCK)).certificate_days is None
