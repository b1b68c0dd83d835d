"""What a migration needs of its host: small interfaces, so that a simulation can stand behind each of them."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from services.write_cloning.devices.interface import Device
from services.write_cloning.map_files import MapFiles
from services.write_cloning.volume.volume import Volume
from services.write_cloning.witness import Witnesses
from shared.bus.interface import Journal, Requests
from shared.clock import Clock
from shared.messages.status import ConnectionView
from shared.migration.devices import DeviceIdentity
from shared.migration.records import DevicePair
from shared.migration.table import Step, Transition

StepHook = Callable[[Transition, Step], Awaitable[None]]
"""Called before each step of a transition. Empty in production; where tests put their crash points."""


def random_token() -> str:
    """A name that nothing else has: 64 random bits."""
    return secrets.token_hex(8)


async def no_hook(_transition: Transition, _step: Step) -> None:
    """Do nothing: production's hook."""


class Exports(Protocol):
    """Where volumes are offered to clients."""

    def add(self, name: str, volume: Volume) -> None:
        """Offer a volume under a migration's name."""

    async def remove(self, name: str) -> None:
        """Withdraw it, disconnecting whoever is left."""

    def uri(self, name: str) -> str:
        """Where clients find it."""

    def connections(self, name: str) -> tuple[ConnectionView, ...]:
        """Who is connected."""


class DeviceOpener(Protocol):
    """Opens devices as the host's config allows."""

    async def open_pair(
        self, source: str, target: str, *, overwrite_target: bool
    ) -> tuple[Device, Device, DevicePair]:
        """Open, lock and check the two devices of a new migration.

        Raises:
            Refusal: what is wrong with which of them; nothing stays open.
        """

    async def open_recorded(self, identity: DeviceIdentity, *, is_target: bool) -> Device:
        """Open a device that a record names; refuses one that is not the same any more.

        Raises:
            Refusal: with the code of what is wrong with it.
        """

    def alignment_bytes(self, identity: DeviceIdentity) -> int:
        """What a recorded device that is not there will ask for when it is opened again, or more."""

    async def written_ns(self, identity: DeviceIdentity) -> int:
        """When a recorded file was last written to (mtime), or what stands for that in `last_changes`."""

    async def check_name(self, identity: DeviceIdentity) -> None:
        """Make sure that an open target can still be found under the name that it was given by.

        Raises:
            Refusal: (`device-changed`) the name leads elsewhere or nowhere; or the code of why it cannot be looked at.
        """

    async def is_same(self, uri: str, other_uri: str) -> bool:
        """Whether two names lead to the same storage.

        Raises:
            Refusal: one of them cannot be looked at.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long things may take, and how finely is counted."""

    io_timeout_s: float = 10.0
    target_flush_interval_s: float = 5.0
    journal_wait_s: float = 10.0  # how long a command's answer waits for the journal
    region_size_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Everything around a migration."""

    host: str
    run: int
    clock: Clock
    tasks: asyncio.TaskGroup
    witnesses: Witnesses
    journal: Journal
    requests: Requests
    opener: DeviceOpener
    exports: Exports
    limits: Limits
    life: str = ""  # of this process: as in its service's metadata
    new_token: Callable[[], str] = random_token  # a name that nothing else ever has
    maps: MapFiles | None = None  # None: no region map is kept, and every resync is full
    hook: StepHook = no_hook
