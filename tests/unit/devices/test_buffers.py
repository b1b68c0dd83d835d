"""The buffer pool: classes, references, the budget, and the order in which those who wait are served."""

import ctypes
import timeit

import pytest

from services.write_cloning.devices.buffers import (
    LARGEST_BYTES,
    ZEROES,
    ZEROES_BYTES,
    Buffer,
    BufferPool,
)
from services.write_cloning.devices.errors import BufferMisuseError, DeviceInvariantError, PoolExhaustedError

KIB = 1 << 10
MIB = 1 << 20


@pytest.mark.parametrize(
    ("length", "size_bytes"),
    [
        (1, 4 * KIB),
        (4 * KIB, 4 * KIB),
        (4 * KIB + 1, 8 * KIB),
        (MIB, MIB),
        (MIB + 1, 2 * MIB),
        (64 * MIB, 64 * MIB),
    ],
)
def test_a_buffer_is_the_smallest_power_of_two_that_holds_the_length(length: int, size_bytes: int) -> None:
    buffer = BufferPool().take(length)
    assert buffer.size_bytes == len(buffer.view) == size_bytes


def test_buffers_are_page_aligned_and_apart() -> None:
    pool = BufferPool()
    buffers = [pool.take(4 * KIB) for _ in range(64)]
    addresses = {buffer.address for buffer in buffers}
    assert len(addresses) == 64
    assert all(address % (4 * KIB) == 0 for address in addresses)


def test_view_and_address_are_the_same_memory() -> None:
    buffer = BufferPool().take(4 * KIB)
    buffer.view[17:20] = b"abc"
    assert ctypes.string_at(buffer.address + 17, 3) == b"abc"


@pytest.mark.parametrize("length", [0, -1, LARGEST_BYTES + 1])
def test_a_length_that_no_buffer_has_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"(a|no) buffer holds"):
        BufferPool().take(length)


def test_the_last_release_returns_the_buffer_for_reuse() -> None:
    pool = BufferPool()
    buffer = pool.take(4 * KIB)
    buffer.retain()
    buffer.release()
    assert pool.take(4 * KIB) is not buffer
    buffer.release()
    again = pool.take(4 * KIB)
    assert again is buffer
    assert again.references == 1


def test_releasing_once_too_often_is_an_invariant_error() -> None:
    buffer = BufferPool().take(4 * KIB)
    buffer.release()
    with pytest.raises(BufferMisuseError):
        buffer.release()


def test_retaining_what_nobody_holds_is_an_invariant_error() -> None:
    buffer = BufferPool().take(4 * KIB)
    buffer.release()
    with pytest.raises(BufferMisuseError):
        buffer.retain()


def test_the_budget_holds() -> None:
    pool = BufferPool(16 * KIB)
    taken = [pool.take(4 * KIB) for _ in range(4)]
    assert pool.try_take(1) is None
    with pytest.raises(PoolExhaustedError, match="16384 of 16384 bytes are in use"):
        pool.take(1)
    taken[0].release()
    assert pool.try_take(1) is taken[0]


def test_idle_memory_of_one_class_is_given_back_for_another() -> None:
    pool = BufferPool(64 * KIB)
    small = [pool.take(4 * KIB) for _ in range(16)]
    assert pool.try_take(64 * KIB) is None
    for buffer in small:
        buffer.release()
    large = pool.take(64 * KIB)
    assert pool.mapped_bytes == large.size_bytes == 64 * KIB
    with pytest.raises(ValueError, match="released"):
        _ = small[0].view[0]


def test_what_is_in_use_is_counted() -> None:
    pool = BufferPool()
    small, large = pool.take(1), pool.take(MIB)
    assert pool.in_use_bytes == MIB + 4 * KIB
    large.release()
    assert pool.in_use_bytes == 4 * KIB
    small.release()
    assert pool.in_use_bytes == 0


def test_who_waits_is_called_when_there_is_room() -> None:
    pool = BufferPool(8 * KIB)
    taken = [pool.take(4 * KIB), pool.take(4 * KIB)]
    got: list[Buffer | None] = []
    assert pool.try_take(8 * KIB) is None
    pool.when_room(lambda: got.append(pool.try_take(8 * KIB)), 8 * KIB)
    taken[0].release()
    assert got == []
    taken[1].release()
    assert got[0] is not None
    assert got[0].size_bytes == 8 * KIB


def test_newcomers_line_up_behind_who_waits() -> None:
    """Or small requests, for which there is always room, would starve a large one."""
    pool = BufferPool(16 * KIB)
    taken = [pool.take(4 * KIB) for _ in range(4)]
    order: list[str] = []
    pool.when_room(lambda: order.append("large" if pool.try_take(16 * KIB) else "none"), 16 * KIB)
    taken[0].release()
    assert pool.try_take(4 * KIB) is None
    pool.when_room(lambda: order.append("small" if pool.try_take(4 * KIB) else "none"), 4 * KIB)
    taken[1].release()
    taken[2].release()
    assert order == []
    taken[3].release()
    assert order == ["large"]


def test_all_who_find_room_are_called_by_one_release() -> None:
    pool = BufferPool(16 * KIB)
    large = pool.take(16 * KIB)
    got: list[Buffer | None] = []
    for _ in range(5):
        pool.when_room(lambda: got.append(pool.try_take(4 * KIB)), 4 * KIB)
    large.release()
    assert len(got) == 4
    assert None not in got
    assert pool.is_contended


def test_who_is_called_and_takes_nothing_leaves_the_room_to_the_next() -> None:
    pool = BufferPool(4 * KIB)
    only = pool.take(4 * KIB)
    calls: list[str] = []
    pool.when_room(lambda: calls.append("first"))
    pool.when_room(lambda: calls.append("second"))
    only.release()
    assert calls == ["first", "second"]
    assert not pool.is_contended


def test_who_has_gone_is_not_called_and_holds_up_nobody() -> None:
    pool = BufferPool(8 * KIB)
    taken = [pool.take(4 * KIB), pool.take(4 * KIB)]
    calls: list[str] = []

    def gone() -> None:
        calls.append("gone")

    pool.when_room(gone, 8 * KIB)
    pool.when_room(lambda: calls.append("here"), 4 * KIB)
    taken[0].release()
    assert calls == []
    pool.forget(gone)
    assert calls == ["here"]


def test_a_callback_that_raises_does_not_leave_the_pool_confused() -> None:
    pool = BufferPool(4 * KIB)
    only = pool.take(4 * KIB)

    def fail() -> None:
        raise RuntimeError("callback")

    pool.when_room(fail)
    with pytest.raises(RuntimeError, match="callback"):
        only.release()
    assert not pool.is_contended
    assert pool.try_take(1) is only


def test_waiting_for_what_can_never_be_is_refused() -> None:
    pool = BufferPool(8 * KIB)
    with pytest.raises(ValueError, match="largest has 8192"):
        pool.when_room(lambda: None, 16 * KIB)


def test_closing_unmaps_and_refuses_to_overlook_what_is_held() -> None:
    pool = BufferPool()
    held = pool.take(4 * KIB)
    pool.take(MIB).release()
    with pytest.raises(DeviceInvariantError, match="4096 bytes were in use"):
        pool.close()
    assert pool.mapped_bytes == 4 * KIB
    held.view[0] = 1
    held.release()
    pool.close()
    assert pool.mapped_bytes == 0


def test_the_zeroes_are_zero_and_cannot_be_spoiled() -> None:
    assert ZEROES.view.nbytes == ZEROES_BYTES
    assert not any(ZEROES.view[:: 4 * KIB])
    with pytest.raises(TypeError, match="read-only"):
        ZEROES.view[0] = 1


def test_taking_and_releasing_costs_little() -> None:
    """A bound that only a change of kind breaks (a mapping, a lock, a scan for each buffer), on however slow a machine."""
    pool = BufferPool()
    pool.take(4 * KIB).release()
    reference_s = min(timeit.repeat(lambda: bytearray(4 * KIB), number=20_000, repeat=5))
    cost_s = min(timeit.repeat(lambda: pool.take(4 * KIB).release(), number=20_000, repeat=5))
    assert cost_s < 20 * reference_s


def test_a_buffer_that_has_left_makes_room_at_once_and_never_comes_back() -> None:
    pool = BufferPool(8 * KIB)
    buffer = pool.take(8 * KIB)
    served: list[Buffer] = []
    pool.when_room(lambda: served.append(pool.take(8 * KIB)), 8 * KIB)
    buffer.leave_pool()
    assert len(served) == 1
    buffer.leave_pool()  # once more changes nothing
    buffer.view[:1] = b"x"
    buffer.release()
    assert pool.in_use_bytes == pool.mapped_bytes == 8 * KIB
    assert pool.try_take(4 * KIB) is None
    served[0].release()
    assert pool.take(8 * KIB) is served[0]
    ZEROES.leave_pool()  # belongs to none


def test_successor_counts_in_the_place_of_a_buffer_that_has_left() -> None:
    pool = BufferPool(8 * KIB)
    buffer = pool.take(8 * KIB)
    served: list[Buffer] = []
    pool.when_room(lambda: served.append(pool.take(8 * KIB)), 8 * KIB)
    successor = buffer.leave_to_successor()
    assert (successor.size_bytes, successor.references, pool.in_use_bytes) == (8 * KIB, 1, 8 * KIB)
    buffer.release()
    assert served == [], "nobody has its room"
    second = successor.leave_to_successor()
    second.release()
    assert served == [second]
    assert buffer.leave_to_successor().size_bytes == 8 * KIB, "of none that has left already"
    assert pool.mapped_bytes == 8 * KIB


def test_memory_that_something_still_looks_at_goes_when_that_does() -> None:
    """A traceback had a piece of the view: whoever gave a buffer back failed, and with it a write and a client that waited."""
    pool = BufferPool(8 * KIB)
    buffer = pool.take(4 * KIB)
    piece = buffer.view[:16]
    served: list[Buffer] = []
    other = pool.take(4 * KIB)
    pool.when_room(lambda: served.append(pool.take(8 * KIB)), 8 * KIB)
    buffer.release()
    other.release()
    assert len(served) == 1
    assert pool.mapped_bytes == 8 * KIB
    assert bytes(piece) == bytes(16)
