"""What flushes and durable writes that are under way together say of each other.

Linux tells of writes that its cache has lost once, to any one of them. A flush that succeeded beside a durable write that was
told was believed: writes that it should have proved durable were gone, without an error.
"""

import asyncio
import errno

from services.write_cloning.devices.buffers import Buffer, BufferPool
from services.write_cloning.devices.engine import Operation
from services.write_cloning.devices.interface import Done
from services.write_cloning.devices.remote import RemoteDevice
from services.write_cloning.devices.syncs import Syncs
from shared.migration.devices import DeviceIdentity, DeviceKind
from shared.nbd.constants import Command, CommandFlag, TransmissionFlag
from shared.nbd.exports import Agreement
from tests.unit.devices.test_file import Harness


class Flushing:
    """Flushes that the test ends, and what was answered."""

    def __init__(self) -> None:
        self.started: list[tuple[Done, object]] = []
        self.answers: list[tuple[object, int]] = []
        self.syncs = Syncs(
            asyncio.get_running_loop(), lambda done, context: self.started.append((done, context))
        )

    def ask(self, name: str) -> None:
        self.syncs.request(self.answered, name)

    def end_flush(self, error: int = 0) -> None:
        done, context = self.started.pop(0)
        done(context, error)

    def answered(self, name: object, error: int) -> None:
        self.answers.append((name, error))


async def test_flush_waits_for_the_durable_writes_that_were_under_way_with_it() -> None:
    flushing = Flushing()
    before = flushing.syncs.begin()
    flushing.ask("flush")
    meanwhile = flushing.syncs.begin()
    flushing.end_flush()
    flushing.syncs.begin()  # later: it holds nobody
    flushing.syncs.end(before, 0)
    assert flushing.answers == []
    flushing.syncs.end(meanwhile, 0)
    assert flushing.answers == [("flush", 0)]


async def test_flush_fails_with_a_durable_write_that_was_under_way_with_it() -> None:
    flushing = Flushing()
    flushing.ask("answered first")
    write = flushing.syncs.begin()
    flushing.end_flush()
    flushing.ask("still under way")
    flushing.ask("next")
    flushing.syncs.end(write, errno.EIO)
    flushing.end_flush()
    eio = errno.EIO
    assert flushing.answers == [("answered first", eio), ("still under way", eio), ("next", eio)]
    assert flushing.started == []


async def test_next_flush_neither_waits_for_one_that_is_held_nor_holds_it() -> None:
    flushing = Flushing()
    write = flushing.syncs.begin()
    flushing.ask("one")
    flushing.ask("two")
    flushing.end_flush()
    assert len(flushing.started) == 1, "the next one has begun"
    flushing.syncs.end(write, 0)
    assert flushing.answers == [("one", 0)]
    flushing.end_flush()
    assert flushing.answers == [("one", 0), ("two", 0)]


async def test_flush_that_is_asked_for_from_an_answer_is_begun() -> None:
    flushing = Flushing()
    flushing.syncs.request(lambda *_: flushing.ask("two"), "one")
    flushing.end_flush()
    flushing.end_flush()
    assert flushing.answers == [("two", 0)]


async def test_flush_of_a_file_is_not_believed_beside_a_durable_write_that_fails() -> None:
    harness = Harness(is_direct=True)
    harness.lane.is_holding = True
    answers: list[int] = []
    harness.device.write_durably(0, harness.buffer, 0, 512, lambda _, error: answers.append(error), None)
    harness.device.flush(lambda _, error: answers.append(error), None)
    harness.lane.held.reverse()  # the flush is answered first
    assert [asked.operation for asked, _, _ in harness.lane.held] == [Operation.SYNC, Operation.WRITE]
    harness.script(0, -errno.EIO)
    harness.lane.let_go()
    assert answers == [errno.EIO, errno.EIO]


class Connection:
    """A connection whose replies the test gives."""

    error = lost = 0
    migration = ""

    def __init__(self) -> None:
        self.asked: list[tuple[Command, Done, object]] = []

    @property
    def in_flight(self) -> int:
        return len(self.asked)

    def ask(
        self,
        command: Command,
        _flags: CommandFlag,
        _offset: int,
        _length: int,
        _buffer: Buffer | None,
        _start: int,
        done: Done,
        context: object,
    ) -> None:
        self.asked.append((command, done, context))

    def reply(self, error: int = 0) -> None:
        _, done, context = self.asked.pop(0)
        done(context, error)


def remote_device(connection: Connection) -> RemoteDevice:
    agreement = Agreement(
        name="x",
        size_bytes=1 << 16,
        flags=TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH | TransmissionFlag.SEND_FUA,
        enforced_block_bytes=1,
        max_payload_bytes=1 << 25,
        has_structured_replies=False,
        contexts={},
    )
    identity = DeviceIdentity(name="nbd://x", kind=DeviceKind.REMOTE, token="x", size_bytes=1 << 16)
    return RemoteDevice(connection, agreement, identity, alignment_bytes=1, let_go=lambda: None)  # type: ignore[arg-type]


async def test_durable_write_of_a_remote_device_is_not_believed_beside_a_flush_that_fails() -> None:
    """The server may have had it in a cache, and another was told that it is lost."""
    connection, answers = Connection(), []
    device = remote_device(connection)
    device.write_durably(0, BufferPool().take(4096), 0, 4096, lambda _, error: answers.append(error), None)
    device.flush(lambda _, error: answers.append(error), None)
    connection.reply()
    assert answers == []
    connection.reply(errno.EIO)
    assert answers == [errno.EIO, errno.EIO]
    assert device.flush_error == errno.EIO


async def test_flush_of_a_remote_device_is_not_believed_beside_a_durable_write_that_fails() -> None:
    connection, answers = Connection(), []
    device = remote_device(connection)
    device.flush(lambda _, error: answers.append(error), None)
    device.write_durably(0, BufferPool().take(4096), 0, 4096, lambda _, error: answers.append(error), None)
    connection.reply()
    assert answers == []
    connection.reply(errno.EIO)
    assert answers == [errno.EIO, errno.EIO]
