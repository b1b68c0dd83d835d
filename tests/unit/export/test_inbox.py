"""The receive buffer: when it is rewound, when exchanged, and what is carried over."""

from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.export.inbox import Inbox
from services.write_cloning.export.limits import RECEIVE_BYTES


def filled(pool: BufferPool, length: int) -> Inbox:
    inbox = Inbox(pool.try_take)
    assert inbox.make_room(28)
    inbox.append(bytes(index % 251 for index in range(length)))
    return inbox


def held(inbox: Inbox) -> Buffer:
    assert inbox.buffer is not None
    return inbox.buffer


def test_buffer_that_nobody_else_holds_is_rewound() -> None:
    inbox = filled(BufferPool(), 1000)
    inbox.parsed = 1000
    before = held(inbox)
    assert inbox.make_room(28)
    assert (inbox.buffer, inbox.parsed, inbox.filled) == (before, 0, 0)


def test_buffer_that_a_write_holds_is_filled_on() -> None:
    inbox = filled(BufferPool(), 1000)
    inbox.parsed = 1000
    held(inbox).retain()
    assert inbox.make_room(28)
    assert (inbox.parsed, inbox.filled) == (1000, 1000)


def test_buffer_that_a_write_holds_is_left_to_it_when_room_runs_short() -> None:
    pool = BufferPool()
    inbox = filled(pool, RECEIVE_BYTES - 100)
    inbox.parsed = inbox.filled - 50
    carried = bytes(inbox.view[inbox.parsed : inbox.filled])
    before = held(inbox)
    before.retain()
    content = bytes(before.view)
    assert inbox.make_room(28)
    assert held(inbox) is not before
    assert before.references == 1
    assert bytes(before.view) == content
    assert bytes(inbox.view[inbox.parsed : inbox.filled]) == carried
    assert (inbox.parsed, inbox.filled) == (0, 50)


def test_incomplete_request_moves_to_the_front_when_nobody_else_holds_the_buffer() -> None:
    inbox = filled(BufferPool(), RECEIVE_BYTES - 10)
    inbox.parsed = 60_000  # what is carried over overlaps with where it goes
    carried = bytes(inbox.view[60_000 : inbox.filled])
    before = held(inbox)
    assert inbox.make_room(28)
    assert held(inbox) is before
    assert bytes(inbox.view[: inbox.filled]) == carried


def test_request_that_does_not_fit_behind_the_last_is_moved() -> None:
    inbox = filled(BufferPool(), 180_000)
    inbox.parsed = 179_990
    assert inbox.make_room(28)
    assert inbox.parsed == 179_990
    assert inbox.make_room(90_000)
    assert (inbox.parsed, inbox.filled) == (0, 10)


def test_without_memory_nothing_changes() -> None:
    pool = BufferPool(RECEIVE_BYTES)
    inbox = filled(pool, RECEIVE_BYTES - 100)
    inbox.parsed = 1000
    held(inbox).retain()
    assert not inbox.make_room(28)
    assert (inbox.parsed, inbox.filled) == (1000, RECEIVE_BYTES - 100)


def test_nothing_is_held_after_letting_go() -> None:
    pool = BufferPool()
    inbox = filled(pool, 1000)
    inbox.let_go()
    assert pool.in_use_bytes == 0
    assert inbox.unparsed == 0
    inbox.let_go()
    assert inbox.make_room(28)
