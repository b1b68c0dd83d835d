"""A side that is not open. Whoever asks it for anything has a bug, and is told so."""

from collections.abc import Sequence
from typing import NoReturn

from services.write_cloning.devices.interface import Extent
from shared.migration.devices import DeviceIdentity
from shared.migration.refusals import InvariantError


class AbsentDevice:
    """Stands for a device that is closed, and refuses everything but closing."""

    outstanding = 0
    can_zero_fast = False
    flush_error = 0
    engine_name = "closed"

    def __init__(self, identity: DeviceIdentity, alignment_bytes: int = 1) -> None:
        """Remember which device is absent, and what it will ask for where it may come back."""
        self.identity = identity
        self.alignment_bytes = alignment_bytes
        self.size_bytes = identity.size_bytes

    def _refuse(self, *_: object) -> NoReturn:
        raise InvariantError(f"{self.identity.name} was asked for I/O while it is closed")

    read = read_at_once = write = write_all = write_durably = zero = flush = prefetch = _refuse

    async def extents(self, offset: int, length: int, most: int | None = None) -> Sequence[Extent]:
        """Refuse, like everything else."""
        self._refuse(offset, length, most)

    async def close(self) -> None:
        """It is closed already."""
