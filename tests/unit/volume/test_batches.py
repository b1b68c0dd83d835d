"""Requests that are submitted together are carried out as if they had come one by one."""

from services.write_cloning.volume.requests import Kind, Request
from shared.migration.states import State
from tests.support.stepping import Bench, finish


def _write(bench: Bench, offset: int, value: int) -> Request:
    buffer = bench.client_pool.take(4096)
    buffer.view[:4096] = bytes([value]) * 4096

    def complete(request: Request) -> None:
        buffer.release()
        bench.answered.append(request)

    return Request(Kind.WRITE, offset, 4096, complete, buffer=buffer)


async def test_overlapping_writes_of_a_batch_reach_both_devices_in_order() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    first, other, second = _write(bench, 0, 1), _write(bench, 4096, 2), _write(bench, 0, 3)
    bench.volume.submit_all([first, other, second])
    assert len(bench.source.pending) == len(bench.target.pending) == 2
    for device in (bench.target, bench.source):
        await finish(device, "write")
        await finish(device, "write")
    assert bench.answered == [first, other]
    for device in (bench.target, bench.source):
        await finish(device, "write")
        assert device.content[:8192] == bytes([3]) * 4096 + bytes([2]) * 4096
    assert bench.answered == [first, other, second]
    assert bench.client_pool.in_use_bytes == 0


async def test_write_behind_zeroes_of_parts_of_blocks_waits_for_all_of_them() -> None:
    """Such zeroes are taken apart on their way; a write that comes with them must not get in between."""
    bench = Bench(State.SOURCE_SELECTED, alignment=512)
    zeroes = Request(Kind.ZERO, 100, 3000, bench.answered.append)
    write = _write(bench, 0, 1)
    bench.volume.submit_all([zeroes, write])
    for _ in range(100):
        for device in (bench.source, bench.target):
            if device.pending:
                await finish(device, device.pending[0].operation)
    assert bench.answered == [zeroes, write]
    assert bench.source.content[:4096] == bench.target.content[:4096] == bytes([1]) * 4096
