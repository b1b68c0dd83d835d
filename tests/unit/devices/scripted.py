"""An engine whose results the test decides: the odd ones that a real kernel gives once in a blue moon."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from services.write_cloning.devices.buffers import Buffer
from services.write_cloning.devices.engine import TRANSFERS, Odd, Operation
from services.write_cloning.devices.interface import Done, Write
from services.write_cloning.devices.one_by_one import write_one_by_one


@dataclass(frozen=True)
class Asked:
    """What a lane was asked for."""

    operation: Operation
    offset: int
    address: int
    length: int
    flags: int


class ScriptedLane:
    """Answers with the next scripted result, each in a loop iteration of its own; with success when there is none."""

    def __init__(self, odd: Odd) -> None:
        self.asked: list[Asked] = []
        self.results: deque[int] = deque()
        self.held: deque[tuple[Asked, Done, object]] = deque()
        self.is_holding = False
        self.outstanding = 0
        self._odd = odd

    def read(self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object) -> None:
        self.submit(Operation.READ, offset, buffer.address + start, length, 0, done, context)

    def write(
        self, offset: int, buffer: Buffer, start: int, length: int, done: Done, context: object
    ) -> None:
        self.submit(Operation.WRITE, offset, buffer.address + start, length, 0, done, context)

    def write_all(self, writes: Sequence[Write], done: Done) -> None:
        write_one_by_one(self.write, writes, done)

    def submit(
        self,
        operation: Operation,
        offset: int,
        address: int,
        length: int,
        flags: int,
        done: Done,
        context: object,
    ) -> None:
        asked = Asked(operation, offset, address, length, flags)
        self.asked.append(asked)
        self.outstanding += 1
        if self.is_holding:
            self.held.append((asked, done, context))
        else:
            asyncio.get_running_loop().call_soon(self._answer, asked, done, context)

    def let_go(self) -> None:
        """Answer what was held."""
        self.is_holding = False
        while self.held:
            self._answer(*self.held.popleft())

    async def close(self) -> None:
        assert not self.outstanding

    def _answer(self, asked: Asked, done: Done, context: object) -> None:
        self.outstanding -= 1
        success = asked.length if asked.operation in TRANSFERS else 0
        result = self.results.popleft() if self.results else success
        if result == success:
            done(context, 0)
        else:
            self._odd(
                asked.operation, asked.offset, asked.address, asked.length, asked.flags, result, done, context
            )


class ScriptedEngine:
    """Has one lane."""

    name = "scripted"
    lanes_open = 0

    def __init__(self) -> None:
        self.lane = ScriptedLane(lambda *_: None)

    def open_lane(self, fd: int, odd: Odd, *, is_hashed: bool) -> ScriptedLane:
        self.lane = ScriptedLane(odd)
        return self.lane

    async def close(self) -> None:
        pass
