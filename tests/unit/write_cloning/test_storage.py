"""Small files are replaced whole, in order, whoever stops waiting."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiofiles.os
import pytest

from services.write_cloning.storage import FILE_SIZE_BYTES_MAX, Directory


async def test_what_is_put_is_there_and_what_is_removed_is_not(tmp_path: Path) -> None:
    storage = Directory(tmp_path)
    await storage.put("b", b"1")
    await storage.put("a", b"2")
    await storage.put("b", b"3")
    assert list(await storage.names()) == ["a", "b"]
    assert await storage.get("b") == b"3"
    await storage.remove("b")
    await storage.remove("b")
    assert await storage.get("b") is None
    assert list(await storage.names()) == ["a"]


async def test_put_that_was_cancelled_never_comes_after_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rename was still under way in a thread of its own, and put the older content, or half of the newer, in place."""
    storage = Directory(tmp_path)
    begun, may_go_on = threading.Event(), threading.Event()
    replace = os.replace

    def replace_late(*paths: str) -> None:
        begun.set()
        may_go_on.wait(10)
        replace(*paths)

    monkeypatch.setattr("services.write_cloning.storage._replace", _in_thread(replace_late))
    async with asyncio.TaskGroup() as tasks:
        older = tasks.create_task(storage.put("a", b"older"))
        await asyncio.to_thread(begun.wait, 10)
        older.cancel()
        await asyncio.wait([older])
        monkeypatch.setattr("services.write_cloning.storage._replace", _in_thread(replace))
        newer = tasks.create_task(storage.put("a", b"newer"))
        await asyncio.sleep(0.02)
        assert not newer.done()
        may_go_on.set()
    assert await storage.get("a") == b"newer"


async def test_what_names_lists_was_made_durable_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cause: a process killed between rename and sync leaves a file that a power cut may still take back.

    Failing: the list is made with nothing synced. Passing: the directory itself was synced before.
    """
    (tmp_path / "vol1.witness").write_bytes(b"renamed, and not synced")
    synced: list[tuple[str, bool]] = []
    sync = aiofiles.os.wrap(os.fsync)

    async def noted(descriptor: int, **named: Any) -> None:
        synced.append(
            (str(Path(f"/proc/self/fd/{descriptor}").readlink()), (tmp_path / "vol1.witness").exists())
        )
        await sync(descriptor, **named)

    monkeypatch.setattr("services.write_cloning.storage._fsync", noted)

    assert await Directory(tmp_path).names() == ["vol1.witness"]
    assert synced == [(str(tmp_path), True)]


def _in_thread(function: Callable[..., None]) -> Any:
    return aiofiles.os.wrap(function)


async def test_what_is_put_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the mask says, and where a crash has left a file of another mode aside."""
    (tmp_path / "a.new").write_bytes(b"left")
    (tmp_path / "a.new").chmod(0o644)
    storage = Directory(tmp_path)
    before = os.umask(0)
    try:
        for name in ("a", "b"):
            await storage.put(name, b"1")
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


async def test_what_is_larger_than_is_kept_here_is_not_cut_off(tmp_path: Path) -> None:
    """Cause: the beginning of it was taken for all. Failing, half of a file is told, without a word."""
    storage = Directory(tmp_path)
    (tmp_path / "a").write_bytes(bytes(FILE_SIZE_BYTES_MAX))
    assert await storage.get("a") == bytes(FILE_SIZE_BYTES_MAX)
    (tmp_path / "a").write_bytes(bytes(FILE_SIZE_BYTES_MAX + 1))
    with pytest.raises(OSError, match="more than") as caught:
        await storage.get("a")
    assert caught.value.errno == errno.EFBIG
