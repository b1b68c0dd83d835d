"""When volumes were opened last, and which were cleaned up: remembered over everything but the loss of the file."""

from pathlib import Path

import pytest

from services.write_cloning.openings import GIVEN_AWAY_MAX, REMOVED_MAX, TRIED_MAX, Openings, Runs
from services.write_cloning.storage import FILE_SIZE_BYTES_MAX, Directory
from shared.config.load import ConfigError
from shared.messages.admission import GivenAway, Try
from shared.messages.codec import encode


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


def given(uuid: str, decision: int = 4) -> GivenAway:
    return GivenAway(
        migration="vol1", uuid=uuid, host="h2", digest=f"of-{uuid}-{decision}", decision=decision
    )


async def test_what_was_given_away_is_kept_in_mind_until_it_is_opened_again_or_over(tmp_path: Path) -> None:
    openings = Openings(Directory(tmp_path))
    for each in (given("a"), given("b"), given("c"), given("b", decision=9)):
        await openings.note_given_away(each)
    again = Openings(Directory(tmp_path))
    assert await again.given_away() == (given("a"), given("c"), given("b", decision=9)), "the last one counts"
    await again.note("a", 2)
    await again.forget("c")
    assert await again.given_away() == (given("b", decision=9),)


async def test_of_what_was_given_away_only_the_last_are_kept_in_mind(tmp_path: Path) -> None:
    content = encode({"given_away": [given(f"u{number}") for number in range(GIVEN_AWAY_MAX)]})
    await Directory(tmp_path).put("openings", content)
    openings = Openings(Directory(tmp_path))
    await openings.note_given_away(given("last"))
    kept = await openings.given_away()
    assert (len(kept), kept[0], kept[-1]) == (GIVEN_AWAY_MAX, given("u1"), given("last"))


async def test_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    await Directory(tmp_path).put("openings", b'{"openings":[{"uuid":"a","run":3}]}')
    openings = Openings(Directory(tmp_path))
    assert await openings.read() == {"a": 3}
    await openings.forget("a")
    assert await openings.is_removed("a")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "it is damaged"),
        (b"", "it is damaged"),
        (b'{"openings":[],"later":1}', "of a newer version"),
        (
            b'{"openings":[],"removed":["' + b"a" * FILE_SIZE_BYTES_MAX + b'"]}',
            "it has more than 1048576 bytes",
        ),
    ],
    ids=["torn", "empty", "newer", "too large"],
)
async def test_file_that_cannot_be_read_is_no_file_that_says_nothing(
    tmp_path: Path, content: bytes, why: str
) -> None:
    """Cause: all was forgotten, so that an old state directory passed for one of version 0.1.0. Failing, it is admitted."""
    (tmp_path / "openings").write_bytes(content)
    openings = Openings(Directory(tmp_path))
    with pytest.raises(OSError, match=why):
        await openings.runs()
    with pytest.raises(OSError, match=why):
        await openings.note_try(2, "life")
    with pytest.raises(
        ConfigError, match=r"host\.state_dir: the file 'openings' cannot be read: .*" + why
    ) as refused:
        await openings.require_readable()
    assert "bring back the one of the last run" in str(refused.value)
    assert (tmp_path / "openings").read_bytes() == content


async def test_directory_that_is_new_has_nothing_to_be_read(tmp_path: Path) -> None:
    openings = Openings(Directory(tmp_path))
    await openings.require_readable()
    assert await openings.runs() == Runs()


async def test_tries_of_a_host_that_is_started_again_and_again_stay_few(tmp_path: Path) -> None:
    """Cause: a supervisor started what was refused once a second, until the file, and the request, were too large.

    The first and the last ones are kept: a record may be left of the start that died, or of one that dies now.
    """
    openings = Openings(Directory(tmp_path))
    await openings.note_admitted(1, {}, is_any_closed=False)
    runs = range(2, 2 + 3 * TRIED_MAX)
    for run in runs:
        await openings.note_try(run, f"life {run}")
    known = await openings.runs()
    assert (known.admitted, len(known.tried)) == (1, TRIED_MAX)
    half = TRIED_MAX // 2
    assert [each.run for each in known.tried] == [*runs[:half], *runs[-half:]]
    await openings.note_admitted(runs[-1], {}, is_any_closed=False)
    assert await openings.runs() == Runs(admitted=runs[-1])


async def test_witness_that_is_believed_tells_when_a_volume_was_opened_last_where_nothing_else_does(
    tmp_path: Path,
) -> None:
    openings = Openings(Directory(tmp_path))
    await openings.note("known", 3)
    await openings.note_admitted(5, {"known": 2, "not known": 4}, is_any_closed=False)
    assert await openings.read() == {"known": 3, "not known": 4}
    await openings.note_try(5, "again, for one that was closed")
    await openings.note_admitted(5, {"brought back": 4}, is_any_closed=False)
    assert await openings.read() == {"known": 3, "not known": 4, "brought back": 4}
    assert [each.run for each in (await openings.runs()).tried] == [5]


async def test_tries_count_for_as_long_as_a_volume_stays_closed(tmp_path: Path) -> None:
    """Cause: a start died in its admission, the witness was damaged before the next, and the right one was refused for it."""
    openings = Openings(Directory(tmp_path))
    await openings.note_admitted(1, {}, is_any_closed=False)
    await openings.note_try(2, "died in its admission")
    await openings.note_try(3, "opened the others")
    await openings.note_admitted(3, {}, is_any_closed=True)
    assert await openings.runs() == Runs(admitted=3, tried=(Try(run=2, life="died in its admission"),))
    await openings.note_try(4, "opened all")
    await openings.note_admitted(4, {"brought back": 1}, is_any_closed=False)
    assert await openings.runs() == Runs(admitted=4)
