"""Buffers in the hands of a side that left the routing. Nobody waits for it any more, yet it may still use them.

They count against no budget: a side that hangs may keep them for ever, and the application needs the memory for the side that
works. What that can come to is what was under way when the side left, because no device is brought in again in its place
before it has let go of its last request.
"""

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.volume.requests import Request


class Orphans:
    """Keeps each buffer pinned until its device lets go of it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._buffers: dict[tuple[Request, int], Buffer | None] = {}

    def keep(self, request: Request, side: int, buffer: Buffer | None) -> None:
        """Pin what the side holds for this request, by a reference that the caller hands over."""
        if buffer is not None:
            buffer.leave_pool()
        self._buffers[request, side] = buffer

    def release(self, request: Request, side: int) -> None:
        """The side has let go."""
        buffer = self._buffers.pop((request, side), None)
        if buffer is not None:
            buffer.release()
