"""One application request on its way through a volume. Hot: a slots object, created once for each request, no methods.

The export fills in the first group and hands it to `Volume.submit`; the volume owns the second group until it calls
`request.complete(request)`, with `request.error` 0 or a positive errno. The buffer belongs to the request until then; after it, the
export releases it.
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
    """See the module's docstring. `offset` and `length` are bytes, already checked against the volume's size."""

    __slots__ = (
        "blockers",
        "buffer",
        "complete",
        "cookie",
        "durable",
        "error",
        "fast",
        "flags",
        "held_back",
        "kind",
        "last_region",
        "length",
        "may_punch",
        "offset",
        "owner",
        "region",
        "sides",
        "start",
        "started_at",
        "waiting",
    )

    def __init__(
        self,
        kind: Kind,
        offset: int,
        length: int,
        complete: "Callable[[Request], None]",
        owner: object = None,
        cookie: int = 0,
    ) -> None:
        """Fill in what every request has; the rest takes its default."""
        self.kind = kind
        self.offset = offset
        self.length = length
        self.complete = complete
        self.owner = owner  # the connection that it came from
        self.cookie = cookie  # the client's name for it
        self.flags = 0  # for the owner's use
        self.buffer: Buffer | None = None  # READ: filled by the volume; WRITE: the payload
        self.start = 0  # where in the buffer the bytes begin
        self.durable = False  # FUA
        self.may_punch = False  # ZERO without NO_HOLE; TRIM
        self.fast = False  # ZERO with FAST_ZERO: fail with ENOTSUP rather than write zeroes
        self.error = 0
