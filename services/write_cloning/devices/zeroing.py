"""Makes ranges read as zeroes by the cheapest way that a file or block device has.

What fallocate(2) promises:

- PUNCH_HOLE | KEEP_SIZE. Files: storage is given back, the range reads as zeroes. Block devices: the device's own
  «write zeroes» command, which may unmap; refused with EOPNOTSUPP where it has none, never emulated. Plain discards are of no
  use here: what they leave behind is undefined.
- ZERO_RANGE | KEEP_SIZE. Files: storage stays or becomes reserved. Block devices: zeroes that are not unmapped; where the
  device has no command for it, the kernel writes zeroes itself, so this is never refused, but may be slow.
- Both act below the page cache and drop it for the range, so they order with finished buffered writes as they should.
- Block devices do neither for parts of a sector (EINVAL).

What is refused once is not tried again. The last resort is to write zeroes, in pieces from one shared buffer. A long range is
made in instalments, and whoever waits is told of each.
"""

import errno

from services.write_cloning.devices.buffers import ZEROES, ZEROES_BYTES
from services.write_cloning.devices.engine import Lane, Operation
from services.write_cloning.devices.interface import Done, WentOn, ZeroMode
from services.write_cloning.devices.syncs import Syncs
from services.write_cloning.devices.syscalls import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE

INSTALMENT_BYTES = 256 << 20
"""Of zeroes that the kernel makes: where it writes them itself, whoever waits should see that it goes on. Whole blocks."""

_PUNCH = PUNCH_HOLE | KEEP_SIZE
_RANGE = ZERO_RANGE | KEEP_SIZE
_WAYS = {ZeroMode.PUNCH: (_PUNCH, _RANGE), ZeroMode.ALLOCATE: (_RANGE,)}
_NOT_OFFERED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})


class Zeroing:
    """Zeroes ranges of one device, and remembers what it refuses."""

    def __init__(self, lane: Lane, syncs: Syncs, *, can_punch: bool, can_zero_range_fast: bool) -> None:
        """Begin with what was found when the device was opened."""
        self.lane = lane
        self.syncs = syncs
        self._refused: set[int] = set() if can_punch else {_PUNCH}
        self._is_range_fast = can_zero_range_fast

    @property
    def is_fast(self) -> bool:
        """Whether zeroes cost no writing, in either mode, as far as is known."""
        return self._is_range_fast and not self._refused

    def zero(
        self,
        offset: int,
        length: int,
        mode: ZeroMode,
        durable: bool,
        done: Done,
        context: object,
        went_on: WentOn,
    ) -> None:
        """See `Device.zero`."""
        ways = [way for way in _WAYS[mode] if way not in self._refused]
        _ZeroRequest(self, offset, length, ways, durable, done, context, went_on).go_on(0)

    def refused(self, way: int) -> None:
        """Try a way no more."""
        self._refused.add(way)


class _ZeroRequest:
    """One range on its way: each finished step starts the next."""

    __slots__ = ("_context", "_done", "_durable", "_left", "_offset", "_ways", "_went_on", "_zeroing")

    def __init__(
        self,
        zeroing: Zeroing,
        offset: int,
        length: int,
        ways: list[int],
        durable: bool,
        done: Done,
        context: object,
        went_on: WentOn,
    ) -> None:
        self._zeroing = zeroing
        self._offset = offset
        self._left = length
        self._ways = ways
        self._durable = durable
        self._done = done
        self._context = context
        self._went_on = went_on

    def go_on(self, piece: int) -> None:
        """Start the next step, after `piece` more bytes are zeroes."""
        self._offset += piece
        self._left -= piece
        lane = self._zeroing.lane
        if not self._left:
            self._finish()
        elif self._ways:
            way = self._ways[0]
            length = min(self._left, INSTALMENT_BYTES - self._offset % INSTALMENT_BYTES)
            lane.submit(Operation.ALLOCATE, self._offset, 0, length, way, self._tried, (way, length))
        else:
            length = min(self._left, ZEROES_BYTES)
            lane.write(self._offset, ZEROES, 0, length, self._written, length)

    def _tried(self, asked: tuple[int, int], error: int) -> None:
        way, length = asked
        if error in _NOT_OFFERED:
            self._zeroing.refused(way)
            self._ways.remove(way)
            self.go_on(0)
        elif error == errno.EINVAL:  # of parts of a block device's sectors; others it may zero this way
            self._ways.clear()
            self.go_on(0)
        else:
            self._written(length, error)

    def _written(self, length: int, error: int) -> None:
        if error:
            self._done(self._context, error)
        else:
            self._went_on(self._context)
            self.go_on(length)

    def _finish(self) -> None:
        if self._durable:
            self._zeroing.syncs.request(self._done, self._context)
        else:
            self._done(self._context, 0)
