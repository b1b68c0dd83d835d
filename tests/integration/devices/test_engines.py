"""The choice of an engine, and what only io_uring's could get wrong: its bounds, its rings, and a kernel that refuses."""

import asyncio
import contextlib
import errno
import platform
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.write_cloning.devices import syscalls
from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.engine import LANE_DEPTH
from services.write_cloning.devices.engines import choose_engine
from services.write_cloning.devices.errors import EngineFullError, EngineUnavailableError
from services.write_cloning.devices.file import FileDevice
from services.write_cloning.devices.opening import open_device
from services.write_cloning.devices.ring import RingEngine
from services.write_cloning.devices.rings import TOKENS, Rings
from services.write_cloning.volume.requests import Kind, Request
from tests.integration.devices.tools import KIB, Answer, Driver, open_descriptors, pattern

pytestmark = pytest.mark.needs_root

CHOOSE_AND_WRITE = """
import asyncio, sys
from services.write_cloning.devices.allowed import AllowedPaths
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.engines import choose_engine
from services.write_cloning.devices.opening import open_device

async def main():
    choice = choose_engine()
    device = await open_device(sys.argv[1], allowed=AllowedPaths([sys.argv[1]]), engine=choice.engine)
    buffer = BufferPool().take(4096)
    buffer.view[:] = b"x" * 4096
    done = asyncio.get_running_loop().create_future()
    device.write_durably(0, buffer, 0, 4096, lambda context, error: done.set_result(error), None)
    print(await done, device.engine_name, choice.why_not_io_uring)
    await device.close()
    await choice.engine.close()

asyncio.run(main())
"""


@pytest.fixture
async def ring() -> AsyncIterator[RingEngine]:
    engine = RingEngine()
    yield engine
    await engine.close()


@pytest.fixture
async def device(disk: Path, ring: RingEngine) -> AsyncIterator[FileDevice]:
    device = await open_device(str(disk), allowed=AllowedPaths([str(disk)]), engine=ring)
    yield device
    await device.close()


def test_where_io_uring_is_forbidden_threads_serve_and_say_why(disk: Path) -> None:
    """As a container's filter of system calls does it."""
    command = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", "inject=io_uring_setup:error=EPERM"]
    done = subprocess.run(
        [*command, sys.executable, "-c", CHOOSE_AND_WRITE, str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "0 threads io_uring cannot be used here: Operation not permitted\n"
    assert disk.read_bytes()[:4096] == b"x" * 4096


async def test_io_uring_is_chosen_where_it_can_be() -> None:
    choice = choose_engine()
    assert (choice.engine.name, choice.why_not_io_uring) == ("io_uring", "")
    await choice.engine.close()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errno.ENOSYS, "Function not implemented"),
        (errno.EINVAL, r"Linux 6\.1 is needed"),
        (errno.ENOMEM, "memory"),
    ],
)
async def test_a_kernel_that_refuses(error: int, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "io_uring_setup", lambda *_: -error)
    with pytest.raises(EngineUnavailableError, match=sentence):
        Rings()


@pytest.mark.parametrize("refused_call", [0, 1, 2])
async def test_a_kernel_that_refuses_half_way_leaves_nothing_open(
    refused_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = syscalls.io_uring_register, 0

    def refuse(ring_fd: int, opcode: int, argument: object, count: int) -> int:
        nonlocal calls
        calls += 1
        return -errno.EINVAL if calls > refused_call else original(ring_fd, opcode, argument, count)

    monkeypatch.setattr(syscalls, "io_uring_register", refuse)
    before = open_descriptors()
    with pytest.raises(EngineUnavailableError, match="io_uring"):
        Rings()
    assert open_descriptors() == before


async def test_another_processor_uses_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    choice = choose_engine()
    assert choice.engine.name == "threads"
    assert "aarch64" in choice.why_not_io_uring


async def test_lanes_are_bounded_and_given_back(disk: Path, ring: RingEngine) -> None:
    def odd(*_: object) -> None:
        raise AssertionError

    fd = 0  # never used
    lanes = [ring.open_lane(fd, odd, is_hashed=False) for _ in range(TOKENS // LANE_DEPTH)]
    with pytest.raises(EngineFullError, match="64 devices are open") as refusal:
        ring.open_lane(fd, odd, is_hashed=False)
    assert refusal.value.code == "too-many-devices"
    # A device that finds no lane leaves its file closed and unlocked.
    with pytest.raises(EngineFullError):
        await open_device(str(disk), allowed=AllowedPaths([str(disk)]), engine=ring)
    await lanes.pop().close()
    device = await open_device(str(disk), allowed=AllowedPaths([str(disk)]), engine=ring)
    await device.close()
    for lane in lanes:
        await lane.close()


async def test_queues_wrap_around_without_losing_anything(device: FileDevice, pool: BufferPool) -> None:
    """More requests than either ring has places, in batches that do not divide them."""
    batch = 97
    buffer = pool.take(4 * KIB)
    for _ in range(3 * TOKENS // batch):
        answers = [Answer() for _ in range(batch)]
        for index, answer in enumerate(answers):
            device.read(index * 4 * KIB, buffer, 0, 4 * KIB, answer.done, index)
        assert [await answer.error() for answer in answers] == [0] * batch
    buffer.release()


async def test_more_writes_at_once_than_the_kernel_is_given(device: FileDevice, pool: BufferPool) -> None:
    """The rest waits in the lane, and each is answered once, as itself."""
    buffer = pool.take(4096)
    buffer.view[:4096] = bytes(range(256)) * 16
    writes = [
        Request(Kind.WRITE, place * 16, 16, print, buffer=buffer, start=place % 256)
        for place in range(2 * LANE_DEPTH)
    ]
    answered: list[tuple[Request, int]] = []
    all_answered = asyncio.Event()

    def done(write: Request, error: int) -> None:
        answered.append((write, error))
        if len(answered) == len(writes):
            all_answered.set()

    device.write_all(writes, done)
    assert device.outstanding == len(writes)
    async with asyncio.timeout(10):
        await all_answered.wait()
    assert sorted(map(id, writes)) == sorted(id(write) for write, _ in answered)
    assert {error for _, error in answered} == {0}
    expected = b"".join(bytes(buffer.view[write.start : write.start + 16]) for write in writes)
    assert await Driver(device, pool).read(0, len(expected)) == expected
    buffer.release()


async def test_one_loop_iteration_is_one_system_call(
    device: FileDevice, pool: BufferPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[int] = []
    original = syscalls.io_uring_enter

    def count(ring_fd: int, to_submit: int, minimum_done: int, flags: int) -> int:
        submitted.append(to_submit)
        return original(ring_fd, to_submit, minimum_done, flags)

    monkeypatch.setattr(syscalls, "io_uring_enter", count)
    buffer = pool.take(4 * KIB)
    answers = [Answer() for _ in range(50)]
    for answer in answers:
        device.write(0, buffer, 0, 4 * KIB, answer.done, None)
    assert submitted == []
    assert [await answer.error() for answer in answers] == [0] * 50
    assert [count for count in submitted if count] == [50]
    buffer.release()


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EBUSY, errno.EINTR])
async def test_a_submission_that_is_refused_for_now_is_tried_again(
    error: int, device: FileDevice, pool: BufferPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, refusals = syscalls.io_uring_enter, 3

    def refuse(*arguments: int) -> int:
        nonlocal refusals
        refusals -= 1
        return -error if refusals >= 0 else original(*arguments)

    monkeypatch.setattr(syscalls, "io_uring_enter", refuse)
    driver = Driver(device, pool)
    assert await driver.write(0, pattern(64 * KIB)) == 0
    assert await driver.read(0, 64 * KIB) == pattern(64 * KIB)
    assert refusals < 0


async def test_a_submission_that_is_taken_in_part_goes_on(
    device: FileDevice, pool: BufferPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = syscalls.io_uring_enter
    monkeypatch.setattr(
        syscalls,
        "io_uring_enter",
        lambda fd, count, minimum, flags: original(fd, min(count, 3), minimum, flags),
    )
    buffer = pool.take(4 * KIB)
    answers = [Answer() for _ in range(20)]
    for index, answer in enumerate(answers):
        device.read(index * 4 * KIB, buffer, 0, 4 * KIB, answer.done, None)
    assert [await answer.error() for answer in answers] == [0] * 20
    buffer.release()


async def test_interruptions_are_bounded(
    device: FileDevice, pool: BufferPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that says EAGAIN for ever, which no file should, must not keep us busy for ever."""
    original = Rings.completions

    def interrupted(rings: Rings) -> list[tuple[int, int, int]]:
        return [(token, -errno.EAGAIN, flags) for token, _, flags in original(rings)]

    monkeypatch.setattr(Rings, "completions", interrupted)
    driver = Driver(device, pool)
    assert (await driver.try_read(0, 4 * KIB))[0] == errno.EIO
    assert await driver.write(0, pattern(4 * KIB)) == errno.EIO
    assert await driver.flush() == errno.EAGAIN, "asked once"
    monkeypatch.undo()
    assert await driver.read(4 * KIB, 4 * KIB) == bytes(4 * KIB)


def interrupt(_context: object, _error: int) -> None:
    raise KeyboardInterrupt


async def test_a_loop_that_is_stopped_within_a_done_loses_no_completion(disk: Path) -> None:
    """Ctrl-C arrives inside some callback; the shutdown that follows still hears of every other request."""
    answers = [Answer() for _ in range(10)]
    buffer = BufferPool().take(4 * KIB)

    async def start() -> tuple[RingEngine, FileDevice]:
        ring = RingEngine()
        return ring, await open_device(str(disk), allowed=AllowedPaths([str(disk)]), engine=ring)

    async def ask(device: FileDevice) -> None:
        device.read(0, buffer, 0, 4 * KIB, interrupt, None)
        for answer in answers:
            device.read(0, buffer, 0, 4 * KIB, answer.done, None)
        await asyncio.sleep(5)

    async def finish(ring: RingEngine, device: FileDevice) -> list[int]:
        errors = [await answer.error() for answer in answers]
        await device.close()
        await ring.close()
        return errors

    def run() -> list[int]:
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            ring, device = loop.run_until_complete(start())
            asking = loop.create_task(ask(device))
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asking)
            asking.cancel()
            return loop.run_until_complete(finish(ring, device))

    assert await asyncio.to_thread(run) == [0] * 10
