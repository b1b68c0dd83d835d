"""Reads without a request go where all reads go."""

import errno

from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.stepping import Bench


def read(bench: Bench) -> bytes | None:
    into = bytearray(4096)
    return bytes(into) if bench.volume.read_at_once(0, memoryview(into)) else None


def told_apart(state: State) -> Bench:
    """A bench whose devices have everything at hand, and differ."""
    bench = Bench(state)
    for device, byte in ((bench.source, b"s"), (bench.target, b"t")):
        device.has_all_at_hand = True
        device.content[:4096] = byte * 4096
    return bench


async def test_they_are_served_from_the_side_that_reads_come_from() -> None:
    for state, byte in (
        (State.SETUP, b"s"),
        (State.SYNCING, b"s"),
        (State.SOURCE_SELECTED, b"s"),
        (State.TARGET_SELECTED, b"t"),
    ):
        assert read(told_apart(state)) == byte * 4096


async def test_no_more_from_a_target_that_was_dropped() -> None:
    bench = told_apart(State.TARGET_SELECTED)
    bench.volume.failover.drop(Side.TARGET, withhold=True)
    assert read(bench) == b"s" * 4096


async def test_none_under_direct_io() -> None:
    """Its devices want aligned requests, and have no cache."""
    bench = Bench(State.SETUP, alignment=512)
    bench.source.has_all_at_hand = True
    assert read(bench) is None


async def test_none_from_a_closed_volume() -> None:
    bench = told_apart(State.SETUP)
    await bench.volume.close()
    assert read(bench) is None


async def test_failure_is_left_to_a_request_that_can_tell_of_it() -> None:
    bench = told_apart(State.SOURCE_SELECTED)
    bench.source.fails = lambda _operation: errno.EIO
    assert read(bench) is None
    assert not bench.heard.source_failures


async def test_they_are_counted() -> None:
    bench = told_apart(State.SETUP)
    read(bench)
    assert (bench.volume.reads, bench.volume.read_bytes) == (1, 4096)
