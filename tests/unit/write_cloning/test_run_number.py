"""The number of a run, where the state directory does not let it be counted."""

import errno
import os
from collections.abc import Sequence

import pytest

from services.write_cloning.run_number import next_run
from shared.config.load import ConfigError


class FullStorage:
    """A disk without room."""

    async def put(self, name: str, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def get(self, name: str) -> bytes | None:
        return b"7"

    async def remove(self, name: str) -> None:
        raise AssertionError(name)

    async def names(self) -> Sequence[str]:
        return ("run",)


async def test_a_disk_without_room_is_told_in_one_sentence_with_what_to_do() -> None:
    """It came out as a defect of ours, with a traceback."""
    with pytest.raises(ConfigError) as caught:
        await next_run(FullStorage())
    assert str(caught.value).startswith(
        "host.state_dir: the number of this run cannot be written: No space left"
    )
    assert "Make room there" in str(caught.value)
