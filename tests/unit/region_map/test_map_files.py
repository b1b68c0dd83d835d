"""A map's file is whole on disk when it is made, and every change when it is written."""

import errno
import os
from pathlib import Path

import pytest

from services.write_cloning.map_files import MapDirectory


async def test_what_is_created_and_written_is_there(tmp_path: Path) -> None:
    maps = MapDirectory(tmp_path)
    file = await maps.create("vol1.1-0", b"abcdef")
    await file.write([(0, b"XY"), (4, b"Z")])
    await file.close()
    assert await maps.read("vol1.1-0") == b"XYcdZf"
    assert await maps.read("vol1.9-9") is None


async def test_all_maps_of_a_migration_are_removed_but_one(tmp_path: Path) -> None:
    maps = MapDirectory(tmp_path)
    for name in ("vol1.1-0", "vol1.2-0", "vol10.1-0"):
        await (await maps.create(name, b"x")).close()
    (tmp_path / "vol1.3-0.map.new").write_bytes(b"left by a crash")
    await maps.remove_all("vol1", but="vol1.2-0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vol1.2-0.map", "vol10.1-0.map"]
    await maps.remove_all("vol1")
    assert [path.name for path in tmp_path.iterdir()] == ["vol10.1-0.map"]


async def test_sync_comes_after_the_writes_and_its_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await MapDirectory(tmp_path).create("vol1.1-0", bytes(8))
    seen: list[bytes] = []

    def sync(_descriptor: int) -> None:
        seen.append((tmp_path / "vol1.1-0.map").read_bytes())
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", sync)
    with pytest.raises(OSError, match="Input/output"):
        await file.write([(2, b"ab")])
    assert [content[:8] for content in seen] == [b"\0\0ab\0\0\0\0"]
    await file.close()


@pytest.mark.parametrize("way", ["unpacked", "put in its place", "its inode's number used again"])
async def test_copy_that_a_backup_has_kept_is_not_read(tmp_path: Path, way: str) -> None:
    """It is whole, and of the same run and attempt; what was written since is not in it."""
    maps, path = MapDirectory(tmp_path), tmp_path / "vol1.1-0.map"
    file = await maps.create("vol1.1-0", bytes(8))
    content = path.read_bytes()
    await file.write([(0, b"\1")])
    await file.close()
    if way == "unpacked":
        path.unlink()
        path.write_bytes(content)
    elif way == "put in its place":
        (tmp_path / "restored").write_bytes(content)
        (tmp_path / "restored").replace(path)
    else:
        number = path.stat().st_ino
        path.unlink()
        while True:
            path.write_bytes(content)
            if path.stat().st_ino == number:
                break
            path.rename(tmp_path / f"other-{path.stat().st_ino}")
    with pytest.raises(OSError, match="a copy of what was written"):
        await maps.read("vol1.1-0")


async def test_a_file_that_could_not_be_made_durable_is_not_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="No space"):
        await MapDirectory(tmp_path).create("vol1.1-0", b"x")
    assert not (tmp_path / "vol1.1-0.map").exists()
