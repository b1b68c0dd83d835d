"""What `cutover init` makes: every file of an installation, with its content and mode.

```
nats/nats-server.conf        the server
services/SERVICE.toml        a configuration for each service, bootstrap and monitoring included
hosts/NAME.toml              one for each host
operator.toml                for the `cutover` command: CUTOVER_CONFIG names it
secrets/ROLE.nk              the seed of each role's key
tls/ca.pem, ca-key.pem       the authority, and what signs for it: needed again only for more certificates
tls/nats.pem, nats-key.pem   the NATS server's
tls/nbd-NAME.pem, -key.pem   an NBD server's, for each host
tls/nbd-client/              an NBD client's, under the names that libnbd and QEMU look for
```

Nothing here knows where the files will be used: paths in them begin with `installed_at`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from services.console.certificates import LOOPBACK_NAMES, Authority, Issued, new_authority
from services.console.new_folder import SECRET, SECRETS, File
from services.console.server_file import ServerPlan, server_text
from services.console.service_files import NatsPlan, host_text, nats_text
from shared.bus.nkeys import KEY_BYTES, KeyPair, new_key_pair
from shared.bus.permissions import (
    BOOTSTRAP,
    CONTROL,
    MONITOR,
    OPERATOR,
    RECORDING,
    STARTUP,
    Role,
    cloning_role,
    roles,
)

TLS = PurePosixPath("tls")
CA, CA_KEY = TLS / "ca.pem", TLS / "ca-key.pem"
NATS_PAIR = (TLS / "nats.pem", TLS / "nats-key.pem")
CLIENT_PAIR = (TLS / "nbd-client/client-cert.pem", TLS / "nbd-client/client-key.pem")
SERVER_FILE, OPERATOR_FILE, HOSTS = (
    PurePosixPath("nats/nats-server.conf"),
    PurePosixPath("operator.toml"),
    PurePosixPath("hosts"),
)
ANY_ADDRESS, LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104 - where other machines are to reach it, it listens for them
_OF_SERVICES = {
    BOOTSTRAP: BOOTSTRAP,
    RECORDING: RECORDING,
    CONTROL: CONTROL,
    STARTUP: STARTUP,
    "monitoring": MONITOR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """One host, and the names and addresses that clients of its volumes reach it under, besides its own."""

    name: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the operator wants."""

    installed_at: PurePosixPath
    hosts: tuple[HostPlan, ...]
    nats_hosts: tuple[str, ...] = ()  # none: only this machine reaches it
    nats_port: int = 4222
    monitor: str = "127.0.0.1:8222"
    store: PurePosixPath | None = None  # of the journal
    state_dir: PurePosixPath  # of each host, a folder in it
    allow: tuple[str, ...] = ()


def files_of(plan: Plan, now: datetime) -> dict[PurePosixPath, File]:
    """Every file, by its path in the installation. Keys and certificates are new each time."""
    everyone = roles([host.name for host in plan.hosts])
    keys = {role.name: new_key_pair(secrets.token_bytes(KEY_BYTES)) for role in everyone}
    return {
        **_secrets(keys),
        **_certificates(plan, now),
        **_server(plan, everyone, keys),
        **_configurations(plan, {role.name: role for role in everyone}),
    }


def _secrets(keys: Mapping[str, KeyPair]) -> dict[PurePosixPath, File]:
    return {seed_path(name): seed_file(key) for name, key in keys.items()}


def seed_file(key: KeyPair) -> File:
    """The seed of a key, as a file."""
    return File(f"{key.seed}\n".encode(), SECRET)


def _certificates(plan: Plan, now: datetime) -> dict[PurePosixPath, File]:
    authority = new_authority("Cutover's authority", now)
    files = {
        **pair(CA, CA_KEY, authority.issued),
        **pair(*NATS_PAIR, for_nats(authority, plan.nats_hosts, now)),
        **pair(*CLIENT_PAIR, for_clients(authority, now)),
        CLIENT_PAIR[0].with_name("ca-cert.pem"): File(authority.issued.certificate),
    }
    for host in plan.hosts:
        files |= pair(*nbd_pair(host.name), for_host(authority, host, now))
    return files


def for_nats(authority: Authority, names: Sequence[str], now: datetime) -> Issued:
    """The NATS server's."""
    return authority.for_server("NATS", [*LOOPBACK_NAMES, *names], now)


def for_host(authority: Authority, host: HostPlan, now: datetime) -> Issued:
    """That of a host's NBD server."""
    return authority.for_server(host.name, [*LOOPBACK_NAMES, host.name, *host.addresses], now)


def for_clients(authority: Authority, now: datetime) -> Issued:
    """The one that NBD clients show."""
    return authority.for_client("NBD client", now)


def nbd_pair(host: str) -> tuple[PurePosixPath, PurePosixPath]:
    """Where the certificate and the key of a host's NBD server are."""
    return TLS / f"nbd-{host}.pem", TLS / f"nbd-{host}-key.pem"


def seed_path(role: str) -> PurePosixPath:
    """Where the seed of a role's key is."""
    return PurePosixPath(SECRETS) / f"{role}.nk"


def pair(certificate: PurePosixPath, key: PurePosixPath, issued: Issued) -> dict[PurePosixPath, File]:
    """A certificate and its key, as files."""
    return {certificate: File(issued.certificate), key: File(issued.key, SECRET)}


def _server(plan: Plan, everyone: Sequence[Role], keys: Mapping[str, KeyPair]) -> dict[PurePosixPath, File]:
    server = ServerPlan(
        host=ANY_ADDRESS if plan.nats_hosts else LOOPBACK,
        port=plan.nats_port,
        monitor=plan.monitor,
        certificate=str(plan.installed_at / "tls/nats.pem"),
        key=str(plan.installed_at / "tls/nats-key.pem"),
        store=str(plan.store or plan.installed_at / "nats/jetstream"),
    )
    text = server_text(server, everyone, {name: key.public_key for name, key in keys.items()})
    return {SERVER_FILE: File(text.encode())}


def _configurations(plan: Plan, everyone: Mapping[str, Role]) -> dict[PurePosixPath, File]:
    nats = NatsPlan(
        url=nats_url(plan), monitor_url=_monitor_url(plan), folder=plan.installed_at, secrets=SECRETS
    )
    files = {
        PurePosixPath("services") / f"{service}.toml": nats_text(nats, everyone[role])
        for service, role in _OF_SERVICES.items()
    }
    files[OPERATOR_FILE] = nats_text(nats, everyone[OPERATOR])
    for host in plan.hosts:
        text = host_text(nats, everyone[cloning_role(host.name)], host.name, plan.state_dir, plan.allow)
        files[HOSTS / f"{host.name}.toml"] = text
    return {path: File(text.encode()) for path, text in files.items()}


def nats_url(plan: Plan) -> str:
    """Where everyone finds the server."""
    return f"tls://{_bracketed(plan.nats_hosts[0] if plan.nats_hosts else LOOPBACK)}:{plan.nats_port}"


def _monitor_url(plan: Plan) -> str:
    host, _, port = plan.monitor.rpartition(":")
    everywhere = host in {"", ANY_ADDRESS, "[::]"}
    reached = (_bracketed(plan.nats_hosts[0]) if plan.nats_hosts else LOOPBACK) if everywhere else host
    return f"http://{reached}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host.strip('[]')}]" if ":" in host else host
