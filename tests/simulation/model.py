"""What the application may see: for each sector the values that a read may return now, and those that a power cut may leave.

A write that is under way may be seen, or not. One that was answered is seen, unless it overlapped in time with another: of
those either may be last. One that failed may be seen or not. What was answered before a flush began, and that flush was
answered, survives a power cut, from whichever side is served afterwards; what was answered survives the death of a process.
Once a value was read while nothing was under way it is the only one. What was not flushed may go back by itself, when the
cache of a device fails to write it, until a flush is answered or the sector is written again.

The model knows sectors and values, and nothing of sides, devices or migrations.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


class WrongDataError(Exception):
    """The application saw, or would see, what it must not."""


@dataclass(slots=True, eq=False)
class Write:
    """A write, zero or trim under way."""

    low: int
    values: list[bytes]
    durable: bool
    began: int = 0


@dataclass(slots=True, eq=False)
class Read:
    """A read under way: what it may return, as far as that is known."""

    low: int
    high: int
    began: int = 0
    allowed: list[set[bytes]] = field(default_factory=list)
    was_quiet: list[bool] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Flush:
    """A flush under way: what may be on the device when it begins."""

    began: int
    before: list[set[bytes]]


@dataclass(slots=True)
class GoneBack:
    """What a sector may show besides, since its device has lost what was cached."""

    at: int
    values: set[bytes]


class Model:
    """See the module's docstring."""

    def __init__(self, values: list[bytes]) -> None:
        """Begin with these sectors, durably."""
        self._clock = 0
        self.now: list[dict[bytes, int]] = [{value: 0} for value in values]  # with when it was answered
        self.cut: list[dict[bytes, int]] = [{value: 0} for value in values]  # with when it began
        self.writes: dict[Write, None] = {}
        self.reads: dict[Read, None] = {}
        self._under_way = [0] * len(values)
        self._began = [0] * len(values)
        self._ended: list[dict[bytes, int]] = [{} for _value in values]  # when each was answered last
        self._is_cold = False  # nothing was written since the last power cut
        self._gone_back: dict[int, GoneBack] = {}

    @property
    def is_quiet(self) -> bool:
        return not self.writes

    def begin_write(self, write: Write) -> None:
        self._clock += 1
        self._is_cold = False
        write.began = self._clock
        self.writes[write] = None
        for sector, value in enumerate(write.values, write.low):
            self.cut[sector][value] = self._clock
            self._under_way[sector] += 1
            self._began[sector] = self._clock
        high = write.low + len(write.values)
        for read in self.reads:
            for sector in range(max(read.low, write.low), min(read.high, high)):
                read.allowed[sector - read.low].add(write.values[sector - write.low])

    def end_write(self, write: Write, *, failed: bool) -> None:
        self._clock += 1
        del self.writes[write]
        for sector, value in enumerate(write.values, write.low):
            self._under_way[sector] -= 1
            now = self.now[sector]
            if not failed:
                now = {other: ended for other, ended in now.items() if ended > write.began}
            now[value] = self._clock
            self.now[sector] = now
            if not failed:
                self._forget_older(sector, write.began)
            ended = self._ended[sector]
            ended[value] = self._clock
            if write.durable and not failed:
                # Whatever overlapped with it in time may have come after it, and was not made durable by it.
                pending = self._pending(sector)
                self.cut[sector] = {
                    other: began
                    for other, began in self.cut[sector].items()
                    if other in pending or ended.get(other, 0) > write.began
                }
                self._ended[sector] = {other: ended[other] for other in self.cut[sector] if other in ended}

    def begin_read(self, low: int, high: int) -> Read:
        self._clock += 1
        read = Read(low, high, self._clock)
        for sector in range(low, high):
            read.allowed.append({*self.now[sector], *self._pending(sector), *self._older(sector)})
            read.was_quiet.append(not self._under_way[sector])
        self.reads[read] = None
        return read

    def end_read(self, read: Read, values: list[bytes] | None) -> None:
        """Check what came; None where the read failed."""
        self._clock += 1
        del self.reads[read]
        for number, value in enumerate(values or ()):
            sector = read.low + number
            if value not in read.allowed[number] and value not in self._readable(sector):
                raise WrongDataError(f"sector {sector} read as {told(value)}, {self._explained(sector)}")
            if read.was_quiet[number] and not self._under_way[sector] and self._began[sector] < read.began:
                self._settle(sector, value)

    def begin_flush(self) -> Flush:
        self._clock += 1
        return Flush(self._clock, [{*now, *self._pending(sector)} for sector, now in enumerate(self.now)])

    def end_flush(self, flush: Flush) -> None:
        """It succeeded."""
        for sector in list(self._gone_back):
            self._forget_older(sector, flush.began)
        for sector, cut in enumerate(self.cut):
            if len(cut) > 1:
                before = flush.before[sector]
                self.cut[sector] = {
                    value: began for value, began in cut.items() if value in before or began > flush.began
                }

    def end_of_process(self, *, loses_cache: bool) -> None:
        """The host is gone. What was under way may be seen or not; with the cache, only what was flushed is sure."""
        self._clock += 1
        for write in self.writes:
            for sector, value in enumerate(write.values, write.low):
                self.now[sector][value] = self._clock
                self._under_way[sector] -= 1
        self.writes.clear()
        self.reads.clear()
        if loses_cache:
            for sector, cut in enumerate(self.cut):
                for value in cut:
                    self.now[sector].setdefault(value, self._clock)

    def power_cut(self, *, is_everywhere: bool = True) -> None:
        """Of what was not flushed, anything may be there. Where a cache has survived, what is there may still be lost."""
        self.end_of_process(loses_cache=True)
        self._is_cold = is_everywhere
        self._gone_back.clear()
        for sector, cut in enumerate(self.cut):
            self.now[sector] = dict.fromkeys(cut, self._clock)

    def everything_was_flushed(self) -> None:
        """A clean stop flushes."""
        for sector, now in enumerate(self.now):
            self.cut[sector] = dict(now)

    def lose_cached(self, sectors: Iterable[int]) -> None:
        """The device that is read from may show what a power cut would leave, also of writes that are answered later."""
        self._clock += 1
        for sector in sectors:
            self._gone_back[sector] = GoneBack(self._clock, {*self.cut[sector], *self._older(sector)})
        for read in self.reads:
            for sector in range(read.low, read.high):
                read.allowed[sector - read.low] |= self._older(sector)

    def lose_under_way(self, sectors: Iterable[int]) -> None:
        """The same for the reads that are under way alone: they began where others are not read from any more."""
        for read in self.reads:
            for sector in {*sectors}.intersection(range(read.low, read.high)):
                read.allowed[sector - read.low] |= {*self.cut[sector], *self._older(sector)}
                read.was_quiet[sector - read.low] = False  # whatever it shows settles nothing

    def _older(self, sector: int) -> set[bytes]:
        gone_back = self._gone_back.get(sector)
        return gone_back.values if gone_back is not None else set()

    def _readable(self, sector: int) -> set[bytes]:
        return {*self.now[sector], *self._older(sector)}

    def _forget_older(self, sector: int, began: int) -> None:
        gone_back = self._gone_back.get(sector)
        if gone_back is not None and gone_back.at < began:
            del self._gone_back[sector]

    def audit(self, who: str, values: list[bytes], *, is_final: bool) -> None:
        """Check a whole side, while nothing is under way; whether that is what it holds from here on."""
        for sector, value in enumerate(values):
            if value not in self._readable(sector):
                raise WrongDataError(f"{who}: sector {sector} holds {told(value)}, {self._explained(sector)}")
        if not is_final:
            return
        for sector, value in enumerate(values):
            self._settle(sector, value)
            if self._is_cold and sector not in self._gone_back:
                self.cut[sector] = {value: 0}

    def _settle(self, sector: int, value: bytes) -> None:
        now = self.now[sector]
        if len(now) > 1 and sector not in self._gone_back:
            self.now[sector] = {value: now.get(value, self._clock)}

    def _pending(self, sector: int) -> set[bytes]:
        if not self._under_way[sector]:
            return set()
        return {
            write.values[sector - write.low]
            for write in self.writes
            if write.low <= sector < write.low + len(write.values)
        }

    def _explained(self, sector: int) -> str:
        now = ", ".join(told(value) for value in self.now[sector])
        cut = ", ".join(told(value) for value in self.cut[sector])
        return f"allowed are: {now}; after a power cut: {cut}"


def stamp(number: int, sector: int) -> bytes:
    """What write `number` puts into a sector: no two are alike."""
    return b"%08x%08x" % (number, sector) * 32


def told(value: bytes) -> str:
    """A value, for people."""
    if not any(value):
        return "zeroes"
    if value != value[:16] * 32:
        return f"torn or foreign bytes ({value[:16]!r}...)"
    return f"write {int(value[:8], 16)} of sector {int(value[8:16], 16)}"
