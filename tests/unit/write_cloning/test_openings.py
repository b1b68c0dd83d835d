"""When volumes were opened last, and which were cleaned up: remembered over everything but the loss of the file."""

from pathlib import Path

from services.write_cloning.openings import REMOVED_MAX, Openings
from services.write_cloning.storage import Directory


async def test_what_was_opened_and_what_was_removed_are_told_apart(tmp_path: Path) -> None:
    openings = Openings(Directory(tmp_path))
    await openings.note("a", 1)
    await openings.note("b", 2)
    await openings.forget("a")
    again = Openings(Directory(tmp_path))
    assert await again.read() == {"b": 2}
    assert [await again.is_removed(uuid) for uuid in ("a", "b", "c")] == [True, False, False]


async def test_of_the_removed_only_the_last_are_remembered(tmp_path: Path) -> None:
    openings = Openings(Directory(tmp_path))
    for number in range(REMOVED_MAX + 1):
        await openings.forget(f"u{number}")
    assert not await openings.is_removed("u0")
    assert await openings.is_removed("u1")


async def test_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    await Directory(tmp_path).put("openings", b'{"openings":[{"uuid":"a","run":3}]}')
    openings = Openings(Directory(tmp_path))
    assert await openings.read() == {"a": 3}
    await openings.forget("a")
    assert await openings.is_removed("a")


async def test_file_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    await Directory(tmp_path).put("openings", b"{")
    openings = Openings(Directory(tmp_path))
    assert await openings.read() == {}
    assert not await openings.is_removed("a")
