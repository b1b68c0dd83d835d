"""What can be configured. Every key has its unit in its name, and a default where there is a safe one."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator

from shared.config.addresses import an_nbd_address
from shared.config.urls import without_secrets
from shared.migration.names import NAME_RULE, is_valid_name

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

REGION_BYTES_MIN = 64 * KIB
REGION_BYTES_MAX = 64 * MIB


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
    return value


def _a_monitor_url(value: str) -> str:
    if not value.startswith("http://"):
        raise ValueError("begins with http://")
    return value


Seconds = Annotated[float, Gt(0), Le(3600)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsConfig:
    """`[nats]`: where the bus is, and what its word is worth."""

    # Not in the object's text: it may hold a password.
    url: Annotated[str, AfterValidator(_a_nats_url)] = field(default="nats://127.0.0.1:4222", repr=False)
    monitor_url: Annotated[str, AfterValidator(_a_monitor_url)] | None = None
    accept_unsynced_journal: bool = False

    @property
    def shown_url(self) -> str:
        """The URL for people: without user and password."""
        return without_secrets(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """`[host]`: what the write cloning service of this machine may do, and how."""

    name: Annotated[str, AfterValidator(_a_name)]
    state_dir: Annotated[str, AfterValidator(_an_absolute_path)]
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
    """`[nbd]`: where the volumes are exported. Empty: a socket below the host's state directory."""

    listen: tuple[Annotated[str, AfterValidator(an_nbd_address)], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole file. A service is handed the sections that it needs, and no other."""

    nats: NatsConfig = field(default_factory=NatsConfig)
    host: HostConfig | None = None
    nbd: NbdConfig = field(default_factory=NbdConfig)
