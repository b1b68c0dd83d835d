"""What an application writes, and what it may find again after a crash.

Every sector says which block it belongs to and when it was written, so that a stale, torn, misplaced or foreign one is known
for what it is. Run by the system's Python as well as by ours, so it imports nothing but the standard library.
"""

BLOCK_BYTES = 4096
SECTOR_BYTES = 512
SECTORS = BLOCK_BYTES // SECTOR_BYTES


def content(block: int, stamp: int) -> bytes:
    """A block as it is written for the `stamp`th time of all; stamp 0 is what the source holds from the beginning."""
    return b"".join(_sector(block, number, stamp) for number in range(SECTORS))


def stamps_in(block: int, found: bytes) -> list[int | None]:
    """The stamp of each sector of a block; None for one that is not of this block, or not whole."""
    return [
        _stamp_of(block, number, found[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES])
        for number in range(SECTORS)
    ]


def _sector(block: int, number: int, stamp: int) -> bytes:
    return f"block {block} sector {number} stamp {stamp} ".encode().ljust(SECTOR_BYTES, b"%d" % (stamp % 10))


def _stamp_of(block: int, number: int, found: bytes) -> int | None:
    words = found[:64].split()
    if len(words) < 6 or not words[5].isdigit():
        return None
    stamp = int(words[5])
    return stamp if found == _sector(block, number, stamp) else None


class Knowledge:
    """What an application knows of its volume: for each block the oldest and the newest content that it may find."""

    def __init__(self, blocks: int) -> None:
        """Every block as it was in the beginning."""
        self.acknowledged = [0] * blocks  # after a crash of programs nothing older may be there
        self.flushed = [0] * blocks  # after a power cut nothing older than this
        self.issued = [0] * blocks  # nothing newer ever

    def flush_begins(self) -> list[int]:
        """What a flush that begins now makes durable; hand it to `flush_is_done`."""
        return list(self.acknowledged)

    def flush_is_done(self, begun_with: list[int]) -> None:
        """A flush was acknowledged."""
        self.flushed = [max(pair) for pair in zip(self.flushed, begun_with, strict=True)]

    def wrong_in(self, block: int, found: bytes, *, after_power_cut: bool = False) -> str:
        """What is wrong with a block as it was read, in words; nothing when it may be like this."""
        oldest = (self.flushed if after_power_cut else self.acknowledged)[block]
        stamps = stamps_in(block, found)
        if all(stamp is not None and oldest <= stamp <= self.issued[block] for stamp in stamps):
            return ""
        first = next(
            (each for each in stamps if each is None or not oldest <= each <= self.issued[block]), None
        )
        sample = "" if first is not None else f" ({bytes(found[:40])!r})"
        return f"block {block} holds {stamps}{sample}, and may hold {oldest} to {self.issued[block]}"

    def settle(self, block: int, found: bytes) -> None:
        """It was read after a crash and is right: this is what it holds from now on."""
        stamps = [stamp for stamp in stamps_in(block, found) if stamp is not None]
        self.acknowledged[block] = self.flushed[block] = min(stamps)
        self.issued[block] = max(stamps)
