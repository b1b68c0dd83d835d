"""What one `--allow` lets the host open."""

from pathlib import Path

from services.console.services_config import patterns_of


def test_file_allows_itself_a_folder_what_lies_in_it_and_a_link_what_it_leads_to(tmp_path: Path) -> None:
    file, link = tmp_path / "a.img", tmp_path / "link"
    file.touch()
    link.symlink_to(file)
    assert patterns_of(str(file)) == [str(file)]
    assert patterns_of(str(tmp_path)) == [f"{tmp_path}/*"]
    assert patterns_of(str(link)) == sorted([str(file), str(link)])


def test_remote_export_allows_itself_and_its_socket_without_links(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    assert patterns_of("nbd://storage/vol1") == ["nbd://storage/vol1"]
    assert patterns_of(f"nbd+unix:///vol1?socket={link}/s") == [
        f"nbd+unix:///vol1?socket={folder}/s", f"nbd+unix:///vol1?socket={link}/s",
    ]  # fmt: skip
