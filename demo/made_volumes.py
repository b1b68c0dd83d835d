"""Volumes that the demonstration makes for itself, and an application that writes to them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from demo.listing import Listing
from demo.proof import (
    Finding,
    prove_acknowledged,
    prove_equal_until_commit,
    prove_files,
    prove_filesystem,
    prove_rest_equal,
)
from demo.screen import Screen
from demo.volume import VOLUME_BYTES, DemoError, SourceVolume, make_source


class MadeVolumes:
    """A source with a filesystem and a reserved file, and an empty target."""

    setup_options: Sequence[str] = ()

    def __init__(self, scratch: Path, run: int) -> None:
        """`run` marks the blocks of this run, so that none of another run passes for one."""
        self.source = scratch / "source.img"
        self.target = scratch / "target.img"
        self._scratch = scratch
        self._run = run
        self._made: SourceVolume | None = None

    @property
    def made(self) -> SourceVolume:
        """The source, once it is made."""
        if self._made is None:
            raise DemoError("The source was not made yet.")
        return self._made

    async def prepare(self, screen: Screen) -> None:
        """See `Volumes`."""
        self._made = await asyncio.to_thread(make_source, self.source, self._scratch, self._run)
        with self.target.open("wb") as image:
            image.truncate(VOLUME_BYTES)
        blocks = sum(1 for _ in self.made.reserved_blocks())
        screen.say(
            f"source: {VOLUME_BYTES >> 20} MiB, ext4, {len(self.made.checksums)} files of Python's standard library, "
            f"and a reserved file of {blocks} blocks"
        )

    async def client_options(self, scratch: Path, screen: Screen) -> Sequence[str]:  # noqa: ARG002 - the interface of `Volumes`
        """See `Volumes`."""
        extents = [f"{offset}:{length}" for offset, length in self.made.reserved]
        return ["--run", str(self._run), "--extents", *extents]

    def prove(self, listing: Listing, scratch: Path) -> Sequence[Finding]:
        """See `Volumes`."""
        return (
            prove_filesystem(self.target),
            prove_files(self.made, self.target, scratch),
            prove_acknowledged(self.made, self.target, listing),
            prove_equal_until_commit(self.made, listing),
            prove_rest_equal(self.made, self.target),
        )
