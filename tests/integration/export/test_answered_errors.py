"""What a client is answered with for a device that fails is told to the volume, once for each request; and nothing else is."""

import errno
from pathlib import Path

import pytest

from services.write_cloning.volume.requests import Kind
from shared.nbd.constants import Command, CommandFlag
from tests.integration.export.harness import MIB, serving
from tests.integration.export.memory_volume import MemoryVolume


@pytest.fixture
def volume() -> MemoryVolume:
    return MemoryVolume(4 * MIB)


async def test_every_request_that_fails_is_told(short_path: Path, volume: MemoryVolume) -> None:
    volume.errors = dict.fromkeys(Kind, errno.EIO)
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        for number in range(3):
            assert await client.write(number * 4096, bytes(4096)) == errno.EIO
        for command in (Command.READ, Command.WRITE_ZEROES, Command.TRIM, Command.FLUSH):
            length = 0 if command is Command.FLUSH else 4096
            assert await client.reply(await client.request(command, 0, length)) == errno.EIO
    assert volume.errors_told == [errno.EIO] * 7


async def test_what_succeeds_or_breaks_the_protocol_is_not_told(
    short_path: Path, volume: MemoryVolume
) -> None:
    async with serving(short_path, {"v": volume}) as running:
        client = await running.connect()
        assert await client.write(0, bytes(4096)) == 0
        assert await client.read(0, 4096) == bytes(4096)
        beyond = await client.request(Command.READ, 4 * MIB, 4096)
        assert await client.reply(beyond) == errno.EINVAL
        unknown = await client.request(Command.FLUSH, 0, 0, flags=CommandFlag.FAST_ZERO)
        assert await client.reply(unknown) == errno.EINVAL
    assert volume.errors_told == []
