"""Everything that the checks are made on, as it was found."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.bus.interface import ServiceInstance
from shared.bus.permissions import OPERATOR
from shared.bus.unconnected import Why
from shared.config.model import Config, HostConfig
from shared.messages.local import LocalStatus
from shared.messages.status import Listed, MigrationStatus, UnlistedMigration


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFacts:
    """What JetStream has left on disk; None where there is no limit."""

    used_bytes: int
    limit_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BusFacts:
    """A NATS server that can be reached, and who answers there. What could not be asked has its reason in `troubles`.

    What our role may not ask is in `unasked`, by its name, and nothing is concluded from its absence.
    """

    url: str
    role: str = OPERATOR
    unasked: tuple[str, ...] = ()
    version: str
    is_local: bool
    asks_for_credentials: bool
    certificate_days: float | None = None  # that the one which the server shows is good for; None without TLS
    can_see_sync: bool = True  # whether the server's monitoring page is configured
    lacking: str = ""  # why an acknowledged record may be lost in a power cut
    accepts_less: bool = False  # by the configuration
    streams: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)  # None: it is not there
    storage: StorageFacts | None = None
    store_trouble: str = ""  # why the server stores nothing, in its own words
    denied: tuple[str, ...] = ()
    server_ahead_s: float | None = None
    hosts_ahead_s: Mapping[str, float] = field(default_factory=dict)
    clock_doubt_s: float = 0.0  # what the way of an answer may account for
    instances: tuple[ServiceInstance, ...] = ()
    has_list: bool = True  # whether state control told of the volumes
    migrations: tuple[MigrationStatus, ...] = ()
    unlisted: tuple[UnlistedMigration, ...] = ()  # that the journal does not tell of, by the word of hosts
    troubles: tuple[str, ...] = ()

    @property
    def listed(self) -> tuple[Listed, ...]:
        """Every migration, whoever tells of it."""
        return (*self.migrations, *self.unlisted)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLook:
    """One file or block device that a pattern covers."""

    path: str
    trouble: str = ""  # why it cannot be opened
    use: str = ""  # what else uses it
    sector_bytes: int = 512
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternLook:
    """What a pattern of `host.allowed_devices` covers. `links` lead to what it does not cover: real paths are compared."""

    pattern: str
    is_remote: bool = False
    devices: tuple[DeviceLook, ...] = ()
    links: tuple[str, ...] = ()
    has_more: bool = False  # than are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLook:
    """The folder of the host's witnesses."""

    path: str
    is_there: bool = True
    trouble: str = ""  # why it cannot be used
    mode: int = 0o700
    is_in_memory: bool = False
    locked_by: int | None = None  # the process whose directory it is: a host runs there, whatever it says
    witnesses: tuple[str, ...] = ()  # the migrations that the host has, by the names of the files
    earlier: str = ""  # what an earlier installation keeps elsewhere, without which the host does not start
    free_bytes: int = 0
    sync_s: float | None = (
        None  # how long it took to make a small file durable; None where that was not tried
    )
    sync_trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketLook:
    """Where volumes are exported."""

    address: str
    trouble: str = ""
    is_taken: bool = False  # somebody listens there
    is_nbd: bool | None = None  # whether he greets as an NBD server does; None: he says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """This machine, for the host that its configuration makes of it."""

    host: HostConfig
    why_not_io_uring: str = ""
    patterns: tuple[PatternLook, ...] = ()
    state: StateLook
    sockets: tuple[SocketLook, ...] = ()
    account_troubles: tuple[str, ...] = ()  # of those whom Unix sockets are given to
    own_word: LocalStatus | None = None  # of the host itself, where it runs here and we may ask it
    memory_bytes: int
    descriptors_max: int

    @property
    def silent_host(self) -> int | None:
        """The process of a host that has the state directory, and does not answer here."""
        return self.state.locked_by if self.own_word is None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLook:
    """A file that the configuration names."""

    key: str
    path: str
    trouble: str = ""
    is_secret: bool = False
    mode: int = 0o600
    expires_in_days: float | None = None  # of a certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of it.

    Without `bus` nobody could be reached (`bus_trouble`), or nobody was asked; without `machine` there is no host here.
    """

    config: Config | None
    config_name: str
    installation: str | None = None  # the folder that `cutover init` made, where the configuration is in one
    installed_hosts: tuple[str, ...] = ()  # that it has a configuration for
    mistakes: tuple[str, ...] = ()
    files: tuple[FileLook, ...] = ()
    tls_mistakes: tuple[str, ...] | None = None  # None: no volume is served with TLS
    bus: BusFacts | None = None
    bus_trouble: str = ""
    bus_why: Why | None = None  # there is no connection; None where a file of ours is wrong
    machine: MachineFacts | None = None
