"""What a URI of a local device may look like."""

import pytest

from services.write_cloning.devices.errors import PathNotAbsoluteError, UriNotSupportedError
from services.write_cloning.devices.opening import local_path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/dev/sda", "/dev/sda"),
        ("file:///dev/sda", "/dev/sda"),
        ("file://localhost/dev/sda", "/dev/sda"),
        ("file:///a%20b", "/a b"),
        ("/a%20b", "/a%20b"),
        ("/odd?name#1", "/odd?name#1"),
    ],
)
def test_path_of_a_uri(uri: str, path: str) -> None:
    assert local_path(uri) == path


@pytest.mark.parametrize("uri", ["", "disk.img", "./disk.img", "~/disk.img", "file:disk.img"])
def test_relative_paths_are_refused(uri: str) -> None:
    with pytest.raises(PathNotAbsoluteError, match="no absolute path") as refusal:
        local_path(uri)
    assert refusal.value.code == "path-not-absolute"


@pytest.mark.parametrize(
    "uri", ["http://x/y", "file://otherhost/y", "file:///y?x=1", "nbd://host/e", "/a\0b"]
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(UriNotSupportedError) as refusal:
        local_path(uri)
    assert refusal.value.code == "uri-not-supported"
