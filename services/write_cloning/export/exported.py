"""What an export asks of a volume. It must not know how a volume keeps its promises."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from services.write_cloning.volume.requests import Request


class ExportedVolume(Protocol):
    """A volume as its clients see it."""

    @property
    def size_bytes(self) -> int:
        """Fixed while it is exported."""

    @property
    def alignment_bytes(self) -> int:
        """What buffers, and well-behaved clients' requests, are aligned to; a power of two."""

    def read_at_once(self, offset: int, into: memoryview) -> bool:
        """Read now if nothing has to be waited for; False: nothing is promised of `into`, submit a request.

        Meant for small reads within the volume, where a request would cost more than the read.
        """

    def submit(self, request: Request) -> None:
        """Carry out a request and call `request.complete(request)` once, with `request.error` set.

        The volume checks nothing that the export has checked: the range lies within the volume, and is not empty. It
        takes requests that are not aligned: a read's buffer has room for the whole blocks around its range, and its
        bytes are found at `request.start` in the end. It may change a write's offset, length and buffer on the way. It
        does not raise for anything that can be told by an errno.
        """

    def submit_all(self, requests: Iterable[Request]) -> None:
        """Carry out requests as if they were submitted one by one, in this order."""

    def note_error(self, request: Request) -> None:
        """Take note that a request's client was answered with `request.error`. Never called of one that succeeded."""

    async def block_status(
        self, offset: int, length: int, context: str, most: int
    ) -> Sequence[tuple[int, int]]:
        """Lengths and flags of consecutive extents from `offset` on, as the metadata context defines them.

        No more than about `most` are looked for, and at least one: they may end before the range does.

        Raises:
            OSError: it cannot be told.
        """
