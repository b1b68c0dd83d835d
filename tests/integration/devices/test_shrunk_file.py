"""A file that is cut short behind our back, under everything that asks where there are holes.

Cause: lseek answers alike for the last hole of a file and for what lies beyond its end. Failing, the part that is missing is
told as a hole: the copier makes the target zero there, the comparison finds both sides equal, and a client that asks what is
data copies zeroes with success.
"""

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.write_cloning.copier import Copier, TargetFailedError
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.extents import FileShrunkError
from services.write_cloning.devices.file import FileDevice
from services.write_cloning.surroundings import Limits
from services.write_cloning.throttle import Throttle
from services.write_cloning.verification import Verification
from services.write_cloning.volume.volume import Volume
from shared.clock import SystemClock
from shared.messages.status import Outcome
from shared.migration.devices import Side
from shared.migration.states import State, routing_of
from shared.nbd.constants import ALLOCATION_CONTEXT
from tests.integration.devices.conftest import OpenDevice
from tests.integration.devices.tools import MIB, pattern
from tests.support.stepping import Heard

SIZE = 16 * MIB
LEFT = MIB + 4096  # a region's beginning is left, too


@pytest.fixture(params=[False, True], ids=["cached", "direct"])
def direct(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# `pool` before `opened`: a comparison that ends leaves reads under way, and only a closed device has let go of all.


class Pair:
    """Two files under a volume, and what was told of their failures."""

    def __init__(self, source: FileDevice, target: FileDevice, pool: BufferPool, state: State) -> None:
        self.source, self.target, self.pool = source, target, pool
        self.heard = Heard()
        self.volume = Volume(
            size_bytes=SIZE,
            alignment_bytes=max(source.alignment_bytes, target.alignment_bytes),
            region_size_bytes=MIB,
            pool=pool,
            listener=self.heard,
            source=source,
            target=target,
        )
        self.volume.route(state, routing_of(state, Side.SOURCE))
        self.volume.open()

    def copier(self) -> Copier:
        return Copier(
            volume=self.volume,
            listener=self.heard,
            source=self.source,
            target=self.target,
            pool=self.pool,
            region_size_bytes=MIB,
            throttle=Throttle(),
            io_timeout_s=30,
        )

    def verification(self) -> Verification:
        return Verification(
            verification_id="op-verify",
            volume=self.volume,
            listener=self.heard,
            devices={Side.SOURCE: self.source, Side.TARGET: self.target},
            pool=self.pool,
            limits=Limits(region_size_bytes=MIB, io_timeout_s=30),
            throttle=Throttle(),
            clock=SystemClock(),
        )

    async def block_status(self, offset: int, most: int = 64) -> Sequence[tuple[int, int]]:
        return await self.volume.block_status(offset, SIZE - offset, ALLOCATION_CONTEXT, most)


def made(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    os.truncate(path, SIZE)
    return path


async def pair_of(
    opened: OpenDevice,
    folder: Path,
    pool: BufferPool,
    state: State,
    *,
    content: bytes,
    on_target: bytes,
    direct: bool,
) -> Pair:
    source = await opened(made(folder / "source.img", content), direct=direct)
    target = await opened(made(folder / "target.img", on_target), direct=direct)
    return Pair(source, target, pool, state)


async def test_device_does_not_tell_what_is_missing_as_a_hole(
    disk: Path, opened: OpenDevice, direct: bool
) -> None:
    device = await opened(disk, direct=direct)
    os.truncate(disk, LEFT)
    with pytest.raises(FileShrunkError) as raised:
        await device.extents(2 * MIB, SIZE - 2 * MIB)
    assert raised.value.errno == errno.EIO


async def test_source_that_has_shrunk_is_not_copied_as_zeroes(
    folder: Path, pool: BufferPool, opened: OpenDevice, direct: bool
) -> None:
    pair = await pair_of(
        opened,
        folder,
        pool,
        State.SYNCING,
        content=pattern(SIZE),
        on_target=pattern(SIZE, 2),
        direct=direct,
    )
    os.truncate(folder / "source.img", LEFT)
    copier = pair.copier()
    assert not await copier.run(), "not every region is the same on both sides"
    assert copier.unreadable_regions == tuple(range(1, 16))
    assert {failure.errno for failure in pair.heard.source_failures} == {errno.EIO}
    assert (folder / "target.img").read_bytes()[LEFT:] == pattern(SIZE, 2)[LEFT:], "nothing was laid over it"


async def test_target_that_has_shrunk_does_not_have_the_holes_of_the_source(
    folder: Path, pool: BufferPool, opened: OpenDevice, direct: bool
) -> None:
    """Where zeroing it would «succeed» beyond its end, too, and put nothing there."""
    pair = await pair_of(
        opened, folder, pool, State.SYNCING, content=b"", on_target=pattern(SIZE), direct=direct
    )
    os.truncate(folder / "target.img", LEFT)
    with pytest.raises(TargetFailedError):
        await pair.copier().run()
    assert [(each.operation, each.errno) for each in pair.heard.target_failures] == [("read", errno.EIO)]


@pytest.mark.parametrize("content", [b"", pattern(SIZE)], ids=["holes", "data"])
@pytest.mark.parametrize("side", list(Side))
async def test_sides_are_not_equal_where_one_of_them_ends(
    folder: Path, pool: BufferPool, opened: OpenDevice, side: Side, content: bytes
) -> None:
    pair = await pair_of(
        opened, folder, pool, State.SOURCE_SELECTED, content=content, on_target=content, direct=False
    )
    os.truncate(folder / f"{side}.img", LEFT)
    verification = pair.verification()
    assert not await verification.run()
    assert verification.outcome is Outcome.INCOMPLETE
    assert f"the {side} could not be read" in verification.view().detail


async def test_both_sides_that_end_at_one_place_are_not_equal(
    folder: Path, pool: BufferPool, opened: OpenDevice
) -> None:
    """Such was the target that got zeroes from a source that ends, and was itself cut short by the same hand."""
    pair = await pair_of(
        opened, folder, pool, State.SOURCE_SELECTED, content=b"", on_target=b"", direct=False
    )
    os.truncate(folder / "source.img", LEFT)
    os.truncate(folder / "target.img", LEFT)
    assert not await pair.verification().run()


async def test_client_that_asks_what_is_data_is_not_told_of_a_hole(
    folder: Path, pool: BufferPool, opened: OpenDevice, direct: bool
) -> None:
    pair = await pair_of(
        opened, folder, pool, State.SETUP, content=pattern(SIZE), on_target=b"", direct=direct
    )
    os.truncate(folder / "source.img", LEFT)
    async with asyncio.timeout(10):
        assert await pair.block_status(0, 1) == [(LEFT, 0)], "what is left is data"
        for offset in (0, LEFT, 8 * MIB):
            with pytest.raises(OSError, match="has shrunk"):
                await pair.block_status(offset)
