"""What the tests of devices share: requests that can be awaited, patterns, and programs to run."""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.interface import Device, Done, ZeroMode

KIB = 1 << 10
MIB = 1 << 20


def run(*command: str) -> str:
    """Run a program of the system, found where root's are; raises with what it complained of."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


def unmount(mountpoint: Path, within_s: float = 10.0) -> None:
    """Unmount, once nothing of the filesystem is in use any more.

    Whoever looks through the loop devices of the machine, as another test's service does, holds up for a moment the
    detaching of one over a file of this filesystem; and nothing tells when that moment is over.
    """
    until = time.monotonic() + within_s
    while True:
        try:
            run("umount", str(mountpoint))
        except subprocess.CalledProcessError as error:
            if "busy" not in error.stderr or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def pattern(length: int, seed: int = 1) -> bytes:
    """Bytes that are nowhere zero and differ from place to place."""
    block = bytes((index * 7 + seed) % 255 + 1 for index in range(4099))
    return (block * (length // len(block) + 1))[:length]


class Answer:
    """A `done` and what it was told; counts, so that a second call is seen."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, int]] = []
        self._answered = asyncio.Event()

    def done(self, context: object, error: int) -> None:
        self.calls.append((context, error))
        self._answered.set()

    @property
    def is_there(self) -> bool:
        return bool(self.calls)

    async def error(self, within_s: float = 10.0) -> int:
        async with asyncio.timeout(within_s):
            await self._answered.wait()
        assert len(self.calls) == 1
        return self.calls[0][1]


class Driver:
    """Requests to one device, awaited."""

    def __init__(self, device: Device, pool: BufferPool) -> None:
        self.device = device
        self._pool = pool

    async def write(self, offset: int, data: bytes, *, durable: bool = False, start: int = 0) -> int:
        buffer = self._pool.take(start + len(data))
        buffer.view[start : start + len(data)] = data
        answer = Answer()
        write = self.device.write_durably if durable else self.device.write
        write(offset, buffer, start, len(data), answer.done, None)
        error = await answer.error()
        buffer.release()
        return error

    async def read(self, offset: int, length: int, *, start: int = 0) -> bytes:
        error, data = await self.try_read(offset, length, start=start)
        assert error == 0, os.strerror(error)
        return data

    async def try_read(self, offset: int, length: int, *, start: int = 0) -> tuple[int, bytes]:
        buffer = self._pool.take(start + length)
        answer = Answer()
        self.device.read(offset, buffer, start, length, answer.done, None)
        error = await answer.error()
        data = bytes(buffer.view[start : start + length])
        buffer.release()
        return error, data

    async def zero(self, offset: int, length: int, mode: ZeroMode, *, durable: bool = False) -> int:
        return await self._asked(lambda done: self.device.zero(offset, length, mode, durable, done, None))

    async def flush(self) -> int:
        return await self._asked(lambda done: self.device.flush(done, None))

    async def prefetch(self, offset: int, length: int) -> int:
        return await self._asked(lambda done: self.device.prefetch(offset, length, done, None))

    async def _asked(self, ask: Callable[[Done], None]) -> int:
        answer = Answer()
        ask(answer.done)
        assert not answer.is_there, "a done was called from inside the call"
        return await answer.error()


def open_descriptors() -> list[str]:
    """The numbers of this process's open files, and what they are open on."""
    links = sorted(Path("/proc/self/fd").iterdir(), key=lambda link: int(link.name))
    return [f"{link.name}: {link.readlink()}" for link in links if link.is_symlink()]


async def until(is_so: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait for something that nothing announces."""
    async with asyncio.timeout(within_s):
        while not is_so():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


def allocated_bytes(path: Path) -> int:
    """What a file takes on its filesystem."""
    return path.stat().st_blocks * 512
