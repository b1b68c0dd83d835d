"""Where a volume's requests go now: the two devices, and which of them reads, writes and flushes reach.

Hot: plain attributes, read for every request. Only the volume changes them.
"""

from services.write_cloning.devices.interface import Device
from shared.migration.devices import Side

# Sides, as bits of what a request was sent to and still waits for.
SOURCE = 1
TARGET = 2
BOTH = SOURCE | TARGET

BIT = {Side.SOURCE: SOURCE, Side.TARGET: TARGET}


class Route:
    """See the module's docstring."""

    __slots__ = ("flush_sides", "in_sync", "reads", "source", "target", "write_sides")

    def __init__(self, source: Device, target: Device) -> None:
        """Begin with nothing routed anywhere."""
        self.source = source
        self.target = target
        self.reads = Side.SOURCE
        self.write_sides = 0
        self.flush_sides = 0
        self.in_sync = False  # either side could answer a read

    def reader(self) -> Device:
        """The device that reads come from."""
        return self.source if self.reads is Side.SOURCE else self.target
