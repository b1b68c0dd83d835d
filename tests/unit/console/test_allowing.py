"""What one `--allow` lets the host open."""

from pathlib import Path

import pytest

from services.console.failures import ConsoleError
from services.console.services_config import patterns_of, yet_to_come


def test_file_allows_itself_a_folder_what_lies_in_it_and_a_link_what_it_leads_to(tmp_path: Path) -> None:
    file, link = tmp_path / "a.img", tmp_path / "link"
    file.touch()
    link.symlink_to(file)
    assert patterns_of(str(file)) == [str(file)]
    assert patterns_of(str(tmp_path)) == [f"{tmp_path}/*"]
    assert patterns_of(str(link)) == sorted([str(file), str(link)])


def test_what_ends_with_a_slash_is_a_folder_also_where_it_is_not_there_yet(tmp_path: Path) -> None:
    later = tmp_path / "later"
    assert patterns_of(f"{later}/") == [f"{later}/*"]
    assert patterns_of(str(later)) == [str(later)]
    assert patterns_of(f"{tmp_path}/") == [f"{tmp_path}/*"]
    assert patterns_of("/") == ["/*"]
    (tmp_path / "file").touch()
    with pytest.raises(ConsoleError, match="is no folder"):
        patterns_of(f"{tmp_path}/file/")


def test_empty_path_names_nothing_and_not_the_current_folder() -> None:
    with pytest.raises(ConsoleError) as caught:
        patterns_of("")
    assert caught.value.code == "usage"
    assert caught.value.message.startswith("--allow: '' names no device")


def test_what_is_not_there_yet_is_told_by_what_it_will_let_in(tmp_path: Path) -> None:
    assert "lie directly in it" in yet_to_come(f"{tmp_path}/later/")
    told = yet_to_come(f"{tmp_path}/later")
    assert "exactly that name" in told
    assert f"--allow {tmp_path}/later/ would" in told
    for clear in (str(tmp_path), f"{tmp_path}/*.img", "nbd://storage/vol1"):
        assert not yet_to_come(clear)


def test_remote_export_allows_itself_and_its_socket_without_links(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    assert patterns_of("nbd://storage/vol1") == ["nbd://storage/vol1"]
    assert patterns_of(f"nbd+unix:///vol1?socket={link}/s") == [
        f"nbd+unix:///vol1?socket={folder}/s", f"nbd+unix:///vol1?socket={link}/s",
    ]  # fmt: skip
