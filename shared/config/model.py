"""What can be configured. Every key has its unit in its name, and a default where there is a safe one."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, PlainValidator

from shared.config.addresses import a_page_address, an_nbd_address
from shared.config.urls import without_secrets
from shared.migration.names import NAME_RULE, is_valid_name

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

REGION_BYTES_MIN = 64 * KIB
REGION_BYTES_MAX = 64 * MIB

OPEN_TO_EVERYONE = "everyone on the network may read and write these volumes"
"""What has to be written where TCP shall be served to whoever comes: nobody writes it by accident."""

COMMANDS_UNENCRYPTED = "everyone on the way may read the access token, and give commands with it"
"""What has to be written where the page offers commands over plain HTTP on an address that is not loopback."""

INBOX_PREFIX = "_INBOX"  # of every stock client of NATS
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_INBOX_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def _a_name(value: str) -> str:
    if not is_valid_name(value):
        raise ValueError(f"{value!r} is no name: {NAME_RULE}")
    return value


def _a_power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError(f"{value} is no power of two")
    return value


def _an_absolute_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is no absolute path")
    return value


def _a_device_pattern(value: str) -> str:
    if not value.startswith(("/", "nbd://", "nbd+unix:///")):
        raise ValueError(f"{value!r} is neither an absolute path nor begins with nbd:// or nbd+unix:///")
    return value


def _a_nats_url(value: str) -> str:
    if not value.startswith(("nats://", "tls://")):
        raise ValueError("begins with nats:// or tls://")
    return _with_a_server(value)


def _an_inbox_prefix(value: str) -> str:
    if _INBOX_PREFIX.fullmatch(value) is None or value.split(".", maxsplit=1)[0] == "cutover":
        raise ValueError(
            f"{value!r} is no prefix of inboxes: letters, digits, _ and -, with dots between words"
        )
    return value


def _a_monitor_url(value: str) -> str:
    if not value.startswith("http://"):
        raise ValueError("begins with http://")
    return _with_a_server(value)


def _with_a_server(value: str) -> str:
    """It is not repeated: it may hold a password."""
    try:
        parts = urlsplit(value)
        is_one = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError("names no server: after :// come a name or an address, and a port from 1 to 65535")
    return value


def _the_words(value: str) -> str:
    if value != OPEN_TO_EVERYONE:
        raise ValueError(f'is either not set, or exactly "{OPEN_TO_EVERYONE}"')
    return value


def _the_words_about_commands(value: str) -> str:
    if value != COMMANDS_UNENCRYPTED:
        raise ValueError(f'is either not set, or exactly "{COMMANDS_UNENCRYPTED}"')
    return value


def _a_host_name(value: str) -> str:
    if _HOST_NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no name of a host: letters, digits, hyphens and dots, without a port")
    return value.lower()


def _an_account(value: object) -> str | int:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("is a name or a number")


Seconds = Annotated[float, Gt(0), Le(3600)]
AbsolutePath = Annotated[str, AfterValidator(_an_absolute_path)]
Account = Annotated[str | int, PlainValidator(_an_account)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsConfig:
    """`[nats]`: where the bus is, who we are to it, and what its word is worth."""

    # Not in the object's text: it may hold a password.
    url: Annotated[str, AfterValidator(_a_nats_url)] = field(default="nats://127.0.0.1:4222", repr=False)
    monitor_url: Annotated[str, AfterValidator(_a_monitor_url)] | None = None
    accept_unsynced_journal: bool = False
    nkey_seed_file: Annotated[str, AfterValidator(_an_absolute_path)] | None = None
    # The authority that the server's certificate is checked against; with it, a connection without TLS is refused.
    tls_ca_file: Annotated[str, AfterValidator(_an_absolute_path)] | None = None
    inbox_prefix: Annotated[str, AfterValidator(_an_inbox_prefix)] = INBOX_PREFIX  # of the answers to us

    @property
    def demands_tls(self) -> bool:
        """Whether a connection that is not encrypted is none."""
        return self.tls_ca_file is not None or self.url.startswith("tls://")

    @property
    def shown_url(self) -> str:
        """The URL for people: without user and password."""
        return without_secrets(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """`[host]`: what the write cloning service of this machine may do, and how."""

    name: Annotated[str, AfterValidator(_a_name)]
    state_dir: AbsolutePath
    allowed_devices: tuple[Annotated[str, AfterValidator(_a_device_pattern)], ...] = ()
    io_timeout_s: Seconds = 10.0
    shutdown_timeout_s: Seconds = 60.0
    target_flush_interval_s: Seconds = 5.0
    region_size_bytes: Annotated[
        int, Ge(REGION_BYTES_MIN), Le(REGION_BYTES_MAX), AfterValidator(_a_power_of_two)
    ] = MIB
    region_map: bool = True  # remember which regions may differ, so that a resync copies only those
    io_engine: Literal["auto", "io_uring", "threads"] = "auto"
    direct_io: Literal["auto", "always", "never"] = "auto"
    inflight_budget_bytes: Annotated[int, Ge(64 * MIB), Le(64 * GIB)] = 256 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class NbdConfig:
    """`[nbd]`: where the volumes are exported, and who may reach them. Empty: a socket below the host's state directory."""

    listen: tuple[Annotated[str, AfterValidator(an_nbd_address)], ...] = ()
    tls_certificate_file: AbsolutePath | None = (
        None  # with what stands between it and the CA that clients know
    )
    tls_key_file: AbsolutePath | None = None
    tls_client_ca_file: AbsolutePath | None = None  # clients show a certificate that this CA has signed
    unencrypted_tcp: Annotated[str, AfterValidator(_the_words)] | None = None
    socket_owner: Account | None = None  # of the Unix sockets; a name or a number
    socket_group: Account | None = None  # may connect to them, too


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """`[log]`: how a service tells what it does, on its standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringConfig:
    """`[monitoring]`: the page, the metrics, and whether commands are offered."""

    listen: Annotated[str, AfterValidator(a_page_address)] = "127.0.0.1:8321"  # port 0: any that is free
    # What the page may be asked for under, besides loopback names, and addresses where it does not listen on loopback.
    host_names: tuple[Annotated[str, AfterValidator(_a_host_name)], ...] = ()
    # With it commands are offered, to whoever logs in with the access token; without it the page only shows.
    operator_nkey_seed_file: Annotated[str, AfterValidator(_an_absolute_path)] | None = None
    access_token_file: Annotated[str, AfterValidator(_an_absolute_path)] | None = (
        None  # None: a new one each time
    )
    unencrypted_commands: Annotated[str, AfterValidator(_the_words_about_commands)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole file. A service is handed the sections that it needs, and no other."""

    nats: NatsConfig = field(default_factory=NatsConfig)
    host: HostConfig | None = None
    nbd: NbdConfig = field(default_factory=NbdConfig)
    log: LogConfig = field(default_factory=LogConfig)
    monitoring: MonitoringConfig = field(default_factory=MonitoringConfig)
