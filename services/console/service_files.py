"""The configuration files of services, hosts and the operator, as `cutover init` writes them. Pure: text out of data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import orjson

from shared.bus.permissions import MONITOR, OPERATOR, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsPlan:
    """Where the server is, and where the files of the installation will be."""

    url: str
    monitor_url: str
    folder: PurePosixPath
    secrets: str

    def seed_file(self, role: str) -> str:
        """Where the seed of a role's key will be."""
        return str(self.folder / self.secrets / f"{role}.nk")


def nats_text(plan: NatsPlan, role: Role) -> str:
    """The file of one that only needs the bus."""
    lines = [
        f"# {role.name}: {role.purpose}. Written by `cutover init`.",
        "",
        "[nats]",
        f"url = {_quoted(plan.url)}",
        f"nkey_seed_file = {_quoted(plan.seed_file(role.name))}",
        f"tls_ca_file = {_quoted(str(plan.folder / 'tls/ca.pem'))}",
        f"inbox_prefix = {_quoted(role.inbox_prefix)}",
        f"monitor_url = {_quoted(plan.monitor_url)}",
    ]
    if role.name == MONITOR:
        lines += [
            "",
            "[monitoring]",
            'listen = "127.0.0.1:8321"',
            "# Commands on the page, for whoever logs in with the token that the service's log tells of:",
            f"# operator_nkey_seed_file = {_quoted(plan.seed_file(OPERATOR))}",
        ]
    return "\n".join(lines) + "\n"


def host_text(plan: NatsPlan, role: Role, host: str, state_dir: PurePosixPath, allow: Sequence[str]) -> str:
    """The file of one host."""
    patterns = ", ".join(_quoted(each) for each in allow)
    nothing = "" if allow else "  # no device may be opened until it is named here"
    tls = plan.folder / "tls"
    lines = [
        nats_text(plan, role),
        "[host]",
        f"name = {_quoted(host)}",
        f"state_dir = {_quoted(str(state_dir / host))}",
        f"allowed_devices = [{patterns}]{nothing}",
        "",
        "# Used where volumes are served over TCP, which `listen` says; a Unix socket in state_dir unless given.",
        "[nbd]",
        f"tls_certificate_file = {_quoted(str(tls / f'nbd-{host}.pem'))}",
        f"tls_key_file = {_quoted(str(tls / f'nbd-{host}-key.pem'))}",
        f"tls_client_ca_file = {_quoted(str(tls / 'ca.pem'))}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()  # what JSON and TOML write alike
