"""Volumes of the operator's. The source is read and never written: the application only reads, and checks every byte it gets."""

import asyncio
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from demo.blocks import PIECE_BYTES
from demo.listing import Listing
from demo.proof import Finding, device_bytes, digests_of, prove_held
from demo.screen import Screen
from demo.volume import DemoError

SAMPLES = 64  # places where a target is looked at before it is taken for empty
_TOLD_EVERY_BYTES = 1 << 30


class OwnVolumes:
    """A source that must stay as it is, and a target that must be empty, or given up for overwriting."""

    def __init__(self, source: Path, target: Path, *, overwrite: bool) -> None:
        """`overwrite` gives up what the target holds."""
        self.source = source.absolute()
        self.target = target.absolute()
        self.setup_options: Sequence[str] = ("--overwrite-target",) if overwrite else ()
        self._overwrite = overwrite
        self._digests: list[str] = []
        self._size_bytes = 0

    async def prepare(self, screen: Screen) -> None:
        """See `Volumes`."""
        for path in (self.source, self.target):
            if not path.exists():
                raise DemoError(f"{path} does not exist.")
        if _is_same(self.source, self.target):
            raise DemoError(
                f"{self.source} and {self.target} are the same device: SOURCE and TARGET have to be two."
            )
        self._size_bytes = device_bytes(self.source)
        if not self._overwrite and await asyncio.to_thread(_holds_data, self.target):
            raise DemoError(f"{self.target} is not empty. OVERWRITE=1 gives up what it holds.")
        screen.say(f"source: {self.source}, {self._size_bytes >> 20} MiB; it is only read")

    async def client_options(self, scratch: Path, screen: Screen) -> Sequence[str]:
        """See `Volumes`. Cutover holds the source by now, so nobody else changes it while it is read."""

        def told(place: int) -> None:
            if place and place % _TOLD_EVERY_BYTES == 0:
                screen.say(f"read {place >> 30} GiB of the source, for its checksums")

        self._digests = await asyncio.to_thread(digests_of, self.source, self._size_bytes, told)
        digests = scratch / "digests.json"
        digests.write_text(json.dumps(self._digests))
        return ["--digests", str(digests), "--size", str(self._size_bytes)]

    def prove(self, listing: Listing, scratch: Path) -> Sequence[Finding]:  # noqa: ARG002 - the interface of `Volumes`
        """See `Volumes`."""
        return (
            prove_held("the target holds what the source held", self.target, self._digests, self._size_bytes),
            prove_held("the source is what it was", self.source, self._digests, self._size_bytes),
        )


def _is_same(one: Path, other: Path) -> bool:
    """Whether both names lead to one file, or to one block device by whatever node."""
    first, second = one.stat(), other.stat()
    if stat.S_ISBLK(first.st_mode) and stat.S_ISBLK(second.st_mode):
        return first.st_rdev == second.st_rdev
    return os.path.samestat(first, second)


def _holds_data(device: Path) -> bool:
    """Whether anything but zeroes is found at the beginning, the end, and places between."""
    size_bytes = device_bytes(device)
    step = max(PIECE_BYTES, size_bytes // SAMPLES)
    places = [*range(0, size_bytes, step), max(0, size_bytes - PIECE_BYTES)]
    with device.open("rb", buffering=0) as opened:
        return any(any(os.pread(opened.fileno(), PIECE_BYTES, place)) for place in places)
