"""A write to a clean region reaches no device before its mark is durable; one to a marked region pays nothing."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence

from services.write_cloning.map_files import MapFile
from services.write_cloning.map_keeper import MapKeeper
from services.write_cloning.region_map import Header, empty_bits
from services.write_cloning.volume.marks import CLEAN, DUE, HOT
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.stepping import REGION, SIZE, Bench, finish, turn

REGIONS = SIZE // REGION
HEADER = Header(
    map_id="1-1", uuid="u", run=1, attempt=1, flag_digest="f", size_bytes=SIZE, region_size_bytes=REGION,
    source="s", target="t",
)  # fmt: skip


class SlowFile:
    """A `MapFile` that is done with a write when the test says so."""

    def __init__(self) -> None:
        self.writes: list[Sequence[tuple[int, bytes]]] = []
        self.under_way: list[asyncio.Future[None]] = []
        self.is_closed = False

    async def write(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        self.writes.append(pieces)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.under_way.append(done)
        await done

    async def close(self) -> None:
        self.is_closed = True

    async def finish(self, error: int = 0) -> None:
        done = self.under_way.pop(0)
        if error:
            done.set_exception(OSError(error, "No space left on device"))
        else:
            done.set_result(None)
        await turn()


class SlowFiles:
    """Implements `MapFiles` for one file."""

    def __init__(self) -> None:
        self.file = SlowFile()

    async def create(self, name: str, content: bytes) -> MapFile:
        return self.file

    async def read(self, name: str) -> bytes | None:
        return None

    async def remove_all(self, migration: str, *, but: str = "") -> None:
        pass


class Marked(Bench):
    """A bench whose regions are all clean, and what the witness was made to say."""

    def __init__(self, state: State = State.SOURCE_SELECTED) -> None:
        super().__init__(state)
        self.files = SlowFiles()
        self.maps = MapKeeper("vol1", REGIONS, self.files)
        self.distrusted: list[str] = []
        self.before_distrust: Callable[[], Awaitable[None]] | None = None

    @property
    def file(self) -> SlowFile:
        return self.files.file

    async def begin(self, tasks: asyncio.TaskGroup) -> "asyncio.Task[None]":
        await self.maps.begin(HEADER, empty_bits(REGIONS), all_due=False)
        self.volume.record_in(self.maps.marks)
        return tasks.create_task(self.maps.run(self._distrust))

    async def _distrust(self, because: str) -> None:
        if self.before_distrust is not None:
            await self.before_distrust()
        self.distrusted.append(because)

    def asked(self) -> list[str]:
        return [each.operation for each in (*self.source.pending, *self.target.pending)]


async def test_writes_to_clean_regions_wait_for_one_round_together() -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Marked()
        running = await bench.begin(tasks)
        writes = [bench.write(offset=REGION * number) for number in range(3)]
        await turn()
        assert bench.asked() == []
        assert len(bench.file.writes) == 1
        late = bench.write(offset=REGION * 3)
        await bench.file.finish()
        assert bench.asked() == ["write"] * 6
        assert len(bench.file.writes) == 2, "the late one has a round of its own"
        await bench.file.finish()
        for _ in range(4):
            await finish(bench.source, "write")
            await finish(bench.target, "write")
        assert bench.answered == [*writes, late]
        again = bench.write(offset=100)
        assert bench.asked() == ["write", "write"], "a marked region costs nothing"
        assert len(bench.file.writes) == 2
        await finish(bench.source, "write")
        await finish(bench.target, "write")
        assert bench.answered[-1] is again
        running.cancel()


async def test_write_over_two_regions_waits_for_both_marks() -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Marked()
        running = await bench.begin(tasks)
        bench.write(offset=0)
        await turn()
        bench.write(offset=REGION - 100, length=200)
        await bench.file.finish()
        assert bench.asked() == ["write", "write"]
        await bench.file.finish()
        assert bench.asked() == ["write"] * 4
        running.cancel()


async def test_witness_distrusts_the_map_before_the_write_goes_on_that_could_not_be_marked() -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Marked()
        may_distrust = asyncio.Event()

        async def wait() -> None:
            await may_distrust.wait()

        bench.before_distrust = wait
        running = await bench.begin(tasks)
        write = bench.write()
        await turn()
        await bench.file.finish(errno.ENOSPC)
        assert bench.asked() == [], "the witness says nothing yet"
        may_distrust.set()
        await turn()
        assert bench.distrusted
        assert "No space left" in bench.maps.full_because
        assert bench.asked() == ["write", "write"]
        bench.write(offset=REGION * 2)
        assert bench.asked() == ["write"] * 4, "nothing is recorded any more"
        await finish(bench.source, "write")
        await finish(bench.target, "write")
        assert bench.answered == [write]
        assert write.error == 0, "the application never hears of it"
        assert not bench.maps.map_id
        assert set(bench.maps.marks.states) == {DUE}
        await turn()
        assert bench.file.is_closed
        running.cancel()


async def test_mark_is_kept_for_what_was_written_after_the_flushes_began() -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Marked()
        running = await bench.begin(tasks)
        for number in range(2):
            bench.write(offset=REGION * number)
        await turn()
        await bench.file.finish()
        for _ in range(2):
            await finish(bench.source, "write")
            await finish(bench.target, "write")
        assert not bench.volume.begin_aging(), "what was just written is not looked at yet"
        assert bench.volume.begin_aging()
        bench.write(offset=0)
        await finish(bench.source, "write")
        await finish(bench.target, "write")
        bench.maps.marks.age_out()
        assert list(bench.maps.marks.states) == [HOT, CLEAN, CLEAN, CLEAN]
        running.cancel()


async def test_region_with_a_write_under_way_does_not_age() -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Marked()
        running = await bench.begin(tasks)
        bench.write()
        await turn()
        await bench.file.finish()
        for _ in range(3):
            assert not bench.volume.begin_aging()
        running.cancel()


async def test_target_that_is_dropped_while_a_write_waits_for_its_mark_gets_nothing() -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Marked()
        running = await bench.begin(tasks)
        write = bench.write()
        await turn()
        bench.volume.failover.drop(Side.TARGET, withhold=True)
        await bench.file.finish()
        await finish(bench.source, "write")
        assert bench.answered == [], "the decision is not durable yet"
        assert not bench.target.pending
        bench.volume.failover.answer_withheld()
        assert bench.answered == [write]
        running.cancel()


async def test_closing_waits_for_writes_that_wait_for_their_marks() -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Marked()
        running = await bench.begin(tasks)
        bench.write()
        await turn()
        closing = tasks.create_task(bench.volume.close())
        await turn()
        assert not closing.done()
        await bench.file.finish()
        await finish(bench.source, "write")
        await finish(bench.target, "write")
        await turn()
        assert closing.done()
        running.cancel()


async def test_reads_and_flushes_wait_for_no_mark() -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Marked()
        running = await bench.begin(tasks)
        bench.write()
        await turn()
        read = bench.read(offset=REGION)
        await finish(bench.source, "read")
        assert bench.answered == [read]
        running.cancel()
