"""A volume in memory, as an export sees one, that can be made slow, faulty, or lazy."""

import asyncio
from collections.abc import Iterable, Sequence

from services.write_cloning.volume.requests import Kind, Request


class MemoryVolume:
    """Completes requests from the loop, in order; while `is_held`, not before `let_go`."""

    def __init__(self, size_bytes: int, alignment_bytes: int = 1) -> None:
        self.size_bytes = size_bytes
        self.alignment_bytes = alignment_bytes
        self.data = bytearray(size_bytes)
        self.errors: dict[Kind, int] = {}
        self.seen: list[Request] = []
        self.is_held = False
        self.held: list[Request] = []
        self.most_held = 0
        self.can_zero_fast = True
        self.is_shut_down = False
        self.has_all_at_hand = False  # whether `read_at_once` serves
        self.served_at_once = 0
        self.status_asked: list[int] = []  # how many extents were asked for at most
        self.errors_told: list[int] = []
        self.arrived = asyncio.Event()  # set by every request
        self.extents = {"base:allocation": [(size_bytes, 0)], "cutover:region": [(size_bytes, 1)]}

    def submit(self, request: Request) -> None:
        self.seen.append(request)
        self.arrived.set()
        if self.is_held:
            self.held.append(request)
            self.most_held = max(self.most_held, len(self.held))
        else:
            asyncio.get_running_loop().call_soon(self._carry_out, request)

    def submit_all(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.submit(request)

    def read_at_once(self, offset: int, into: memoryview) -> bool:
        if not self.has_all_at_hand:
            return False
        into[:] = self.data[offset : offset + len(into)]
        self.served_at_once += 1
        return True

    def let_go(self) -> None:
        self.is_held = False
        held, self.held = self.held, []
        for request in held:
            self._carry_out(request)

    def note_error(self, request: Request) -> None:
        self.errors_told.append(request.error)

    async def block_status(
        self, offset: int, length: int, context: str, most: int
    ) -> Sequence[tuple[int, int]]:
        await asyncio.sleep(0)
        self.status_asked.append(most)
        left = []
        for extent_length, flags in self.extents[context]:
            skipped = min(offset, extent_length)
            offset -= skipped
            if extent_length > skipped:
                left.append((extent_length - skipped, flags))
        return left[:most]

    def _carry_out(self, request: Request) -> None:
        request.error = self._find_error(request)
        if not request.error:
            self._apply(request)
        request.complete(request)

    def _find_error(self, request: Request) -> int:
        if self.is_shut_down:
            return 108
        if request.kind is Kind.ZERO and request.fast and not self.can_zero_fast:
            return 95
        return self.errors.get(request.kind, 0)

    def _apply(self, request: Request) -> None:
        begin, end = request.offset, request.offset + request.length
        if request.kind is Kind.WRITE:
            assert request.buffer is not None
            if self.alignment_bytes > 1:
                assert request.start == 0  # a pooled buffer of its own, hence aligned
            self.data[begin:end] = request.buffer.view[request.start : request.start + request.length]
        elif request.kind is Kind.READ:
            assert request.buffer is not None
            low = begin - begin % self.alignment_bytes
            high = min(end + -end % self.alignment_bytes, self.size_bytes)
            request.buffer.view[: high - low] = self.data[low:high]
            request.start = begin - low
        elif request.kind is Kind.ZERO or request.kind is Kind.TRIM:
            self.data[begin:end] = bytes(request.length)


class NullVolume(MemoryVolume):
    """Forgets what is written: shows what the export alone costs."""

    def __init__(self, size_bytes: int, alignment_bytes: int = 1) -> None:
        super().__init__(0)
        self.size_bytes = size_bytes
        self.alignment_bytes = alignment_bytes
        self.extents = {"base:allocation": [(size_bytes, 0)], "cutover:region": [(size_bytes, 0)]}
        self._batch: list[Request] = []
        self._loop = asyncio.get_running_loop()

    def submit(self, request: Request) -> None:
        if not self._batch:
            self._loop.call_soon(self._complete_batch)
        self._batch.append(request)

    def _complete_batch(self) -> None:
        batch, self._batch = self._batch, []
        for request in batch:
            request.complete(request)
