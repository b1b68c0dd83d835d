"""One application request on its way through a volume. Hot: a slots object, created once for each request, no methods.

The export fills in the first group and hands the request to `Volume.submit`; from then on it is the volume's, until the
volume calls `request.complete(request)` with `request.error` 0 or a positive errno. That call never comes from inside
`submit`. The buffer stays pinned until then; the volume retains it when a device may use it for longer, so the export
releases its own reference and nothing else.
"""

from collections.abc import Callable
from enum import IntEnum

from services.write_cloning.devices.buffers import Buffer


class Kind(IntEnum):
    """What the application asked for."""

    READ = 0
    WRITE = 1
    ZERO = 2
    TRIM = 3
    FLUSH = 4
    CACHE = 5


class Request:
    """See the module's docstring. `offset` and `length` are bytes, already checked against the volume's size.

    `buffer` holds a write's payload from byte `start` on, at an address that the volume's alignment divides. For a read the
    export brings a buffer of at least `length` bytes, plus twice the alignment where that is above 1, and finds the
    bytes at `start` when the request completes (in `buffer` as it is then: the volume may have replaced it).
    """

    __slots__ = (
        "asked_bytes",
        "blockers",
        "buffer",
        "complete",
        "cookie",
        "durable",
        "error",
        "fast",
        "high",
        "kind",
        "last_region",
        "length",
        "low",
        "may_punch",
        "offset",
        "owner",
        "region",
        "sides",
        "start",
        "started_tick",
        "waiting",
    )

    # The volume's, set when the request is admitted.
    low: int  # the range, rounded out to the alignment
    high: int
    region: int
    last_region: int
    blockers: int  # earlier overlapping writes that are not done
    sides: int  # that it was sent to
    waiting: int  # what it still waits for
    started_tick: int

    def __init__(
        self,
        kind: Kind,
        offset: int,
        length: int,
        complete: "Callable[[Request], None]",
        cookie: int = 0,
        buffer: Buffer | None = None,
        start: int = 0,
        owner: object = None,
    ) -> None:
        """Fill in what most requests have; the rest takes its default."""
        self.kind = kind
        self.offset = offset
        self.length = length
        self.asked_bytes = length  # stays, where the volume widens the request to whole blocks
        self.complete = complete
        self.cookie = cookie  # the client's name for it
        self.buffer = buffer
        self.start = start  # where in the buffer the bytes begin
        self.owner = owner  # for the maker's use
        self.durable = False  # FUA
        self.may_punch = False  # ZERO without NO_HOLE; TRIM
        self.fast = False  # ZERO with FAST_ZERO: fail with ENOTSUP rather than write zeroes
        self.error = 0
