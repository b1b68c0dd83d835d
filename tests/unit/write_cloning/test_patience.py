"""A device is blamed for the time in which it was waited for, not for the time in which nobody could have heard it."""

import asyncio
import socket
import time

import pytest

from services.write_cloning.patience import patience


async def test_what_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with patience(0.05):
            await asyncio.Event().wait()
    assert time.monotonic() - began >= 0.04


async def test_what_is_done_in_time_is_not_ended_afterwards() -> None:
    async with patience(0.05):
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)


async def test_process_that_was_frozen_looks_at_what_came_meanwhile() -> None:
    """When it wakes, the answer is there, and so is the end of its time: the answer counts."""
    loop = asyncio.get_running_loop()
    answered = loop.create_future()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop.add_reader(ours, lambda: answered.set_result(ours.recv(1)))
        async with patience(0.4):
            theirs.send(b"x")
            time.sleep(1.0)  # noqa: ASYNC251 # frozen
            assert await answered == b"x"
        loop.remove_reader(ours)


async def test_error_of_what_is_waited_for_is_its_own() -> None:
    with pytest.raises(OSError, match="mine"):
        async with patience(1.0):
            raise OSError("mine")
