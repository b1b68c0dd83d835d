"""Whatever the order in which devices do things, both sides agree, and what was answered is there (rules R3 and R4).

Each seed is one schedule: overlapping writes, zeroes, trims, reads and flushes, the copier or else comparisons (which must
find nothing), and the devices' own choices. The
devices do overlapping requests in any order, so a volume that let two of them be under way at once is found out. A
failing seed replays with `SEED=n`.
"""

import asyncio
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from services.write_cloning.copier import Copier
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.surroundings import Limits
from services.write_cloning.throttle import Throttle
from services.write_cloning.verification import Verification
from services.write_cloning.volume.failures import Failure
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.volume import Volume
from shared.clock import SystemClock
from shared.migration.devices import Side
from shared.migration.states import State, routing_of
from tests.support.memory_device import MemoryDevice

SIZE = 12 * 1024
REGION = 4 * 1024
SEEDS = 60
COMPARISONS = 3


@dataclass(slots=True)
class Change:
    """One write as the application asked for it, and those that were answered while it was under way."""

    offset: int
    end: int
    value: int
    meanwhile: list["Change"] = field(default_factory=list)

    def covers(self, at: int) -> bool:
        return self.offset <= at < self.end


class Model:
    """What the application may find at each byte. Writes that were under way together may have come in either order."""

    def __init__(self, content: bytes) -> None:
        self.possible = [{value} for value in content]
        self.under_way: list[Change] = []

    def begin(self, change: Change) -> None:
        self.under_way.append(change)
        for at in range(change.offset, change.end):
            self.possible[at].add(change.value)

    def end(self, change: Change) -> None:
        self.under_way.remove(change)
        for other in self.under_way:
            other.meanwhile.append(change)
        rivals = self.under_way + change.meanwhile
        for at in range(change.offset, change.end):
            self.possible[at] = {change.value} | {rival.value for rival in rivals if rival.covers(at)}


class Quiet:
    """A listener for devices that do not fail."""

    def target_failed(self, failure: Failure) -> None:
        raise AssertionError(failure)

    source_failed = source_lost = target_failed

    def sides_differ(self, request: Request) -> None:
        raise AssertionError(request)


class Application:
    """Issues random requests, and checks every answer against the model."""

    def __init__(self, volume: Volume, rng: random.Random, content: bytes, pool: BufferPool) -> None:
        self.volume = volume
        self.rng = rng
        self.model = Model(content)
        self.pool = pool
        self.values = self._values()
        self.under_way = 0
        self.reading: list[Request] = []

    @staticmethod
    def _values() -> Iterator[int]:
        while True:
            yield from range(1, 256)

    def act(self) -> None:
        kind = self.rng.choice(
            [Kind.WRITE, Kind.WRITE, Kind.WRITE, Kind.READ, Kind.ZERO, Kind.TRIM, Kind.FLUSH]
        )
        offset = self.rng.randrange(SIZE - 1)
        length = min(self.rng.choice([1, 512, 2048, 5000]), SIZE - offset)
        if kind is Kind.FLUSH:
            self._submit(Request(kind, 0, 0, self._flushed))
        elif kind is Kind.READ:
            request = Request(kind, offset, length, self._read)
            request.buffer = self.pool.take(length + 1024)
            request.owner = [set(values) for values in self.model.possible[offset : offset + length]]
            self.reading.append(request)
            self._submit(request)
        else:
            self._mutate(Request(kind, offset, length, self._written))

    def _mutate(self, request: Request) -> None:
        value = 0
        if request.kind is Kind.WRITE:
            value = next(self.values)
            request.buffer = self.pool.take(request.length)
            request.buffer.view[: request.length] = bytes([value]) * request.length
        request.may_punch = self.rng.random() < 0.5
        request.durable = self.rng.random() < 0.2
        change = Change(request.offset, request.offset + request.length, value)
        request.owner = change
        self.model.begin(change)
        for read in self.reading:  # a read that is under way may see it
            seen: list[set[int]] = read.owner  # type: ignore[assignment]
            for at in range(
                max(read.offset, request.offset),
                min(read.offset + read.length, request.offset + request.length),
            ):
                seen[at - read.offset].add(value)
        self._submit(request)

    def _submit(self, request: Request) -> None:
        self.under_way += 1
        self.volume.submit(request)

    def _flushed(self, request: Request) -> None:
        assert request.error == 0
        self.under_way -= 1

    def _written(self, request: Request) -> None:
        assert request.error == 0
        self.under_way -= 1
        if request.buffer is not None:
            request.buffer.release()
        change: Change = request.owner  # type: ignore[assignment]
        self.model.end(change)

    def _read(self, request: Request) -> None:
        assert request.error == 0
        assert request.buffer is not None
        self.under_way -= 1
        found = bytes(request.buffer.view[request.start : request.start + request.length])
        request.buffer.release()
        seen: list[set[int]] = request.owner  # type: ignore[assignment]
        self.reading.remove(request)
        for index, value in enumerate(found):
            assert value in seen[index], f"byte {request.offset + index} read {value}"


async def compare(volume: Volume, source: MemoryDevice, target: MemoryDevice, pool: BufferPool) -> None:
    """Compare both sides again and again while the application writes. A difference would be told to the listener."""
    for number in range(COMPARISONS):
        verification = Verification(
            verification_id=str(number),
            volume=volume,
            listener=Quiet(),
            devices={Side.SOURCE: source, Side.TARGET: target},
            pool=pool,
            limits=Limits(region_size_bytes=REGION, io_timeout_s=30),
            throttle=Throttle(),
            clock=SystemClock(),
        )
        assert await verification.run(), verification.view()


async def run_schedule(seed: int, alignment: int, state: State) -> None:
    rng = random.Random(seed)
    pool = BufferPool(64 << 20)
    content = bytes(rng.choice([0, 7]) for _ in range(SIZE // 4096) for _ in range(4096))
    target_content = content if state is not State.SYNCING else bytes(SIZE)
    source = MemoryDevice("source", content, alignment)
    target = MemoryDevice("target", target_content, alignment)
    volume = Volume(
        size_bytes=SIZE,
        alignment_bytes=alignment,
        region_size_bytes=REGION,
        pool=pool,
        listener=Quiet(),
        source=source,
        target=target,
    )
    volume.route(state, routing_of(state, Side.SOURCE))
    volume.open()
    application = Application(volume, rng, content, pool)
    copier = Copier(
        volume=volume,
        listener=Quiet(),
        source=source,
        target=target,
        pool=pool,
        region_size_bytes=REGION,
        throttle=Throttle(),
        io_timeout_s=30,
    )
    async with asyncio.TaskGroup() as tasks:
        copying = tasks.create_task(copier.run()) if state is State.SYNCING else None
        comparing = tasks.create_task(compare(volume, source, target, pool)) if copying is None else None
        jobs = [job for job in (copying, comparing) if job is not None]
        writes = 60
        idle_rounds = 0
        while writes or application.under_way or not all(job.done() for job in jobs):
            if writes and rng.random() < 0.4:
                application.act()
                writes -= 1
            for device in rng.sample([source, target], 2):
                if rng.random() < 0.7:
                    device.step(rng)
            await asyncio.sleep(0)
            idle_rounds = 0 if writes else idle_rounds + 1
            assert idle_rounds < 100_000, "nothing moves any more"
    assert copying is None or copying.result() is True
    assert source.content == target.content
    for at, possible in enumerate(application.model.possible):
        assert source.content[at] in possible, f"byte {at}"


def seeds() -> list[int]:
    if "SEED" in os.environ:
        return [int(os.environ["SEED"])]
    return list(range(SEEDS))


@pytest.mark.parametrize("state", [State.SYNCING, State.SOURCE_SELECTED, State.TARGET_SELECTED])
@pytest.mark.parametrize("alignment", [1, 512])
async def test_both_sides_agree_and_hold_what_was_answered(state: State, alignment: int) -> None:
    for seed in seeds():
        try:
            await run_schedule(seed, alignment, state)
        except* AssertionError as failures:
            raise AssertionError(f"SEED={seed} alignment {alignment} {state}") from failures
