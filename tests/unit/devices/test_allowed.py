"""Patterns of allowed paths: what each kind matches, and above all what it does not."""

import pytest

from services.write_cloning.devices.allowed import AllowedPaths


@pytest.mark.parametrize(
    ("pattern", "path", "is_allowed"),
    [
        ("/srv/a.img", "/srv/a.img", True),
        ("/srv/a.img", "/srv/aximg", False),
        ("/srv/a.img", "/srv/a.img2", False),
        ("/srv/a.img", "/x/srv/a.img", False),
        ("/srv/*.img", "/srv/a.img", True),
        ("/srv/*.img", "/srv/a.img\n", False),
        ("/srv/*.img", "/srv/deep/a.img", False),
        ("/srv/*", "/srv/deep/a.img", False),
        ("/srv/**", "/srv/deep/er/a.img", True),
        ("/srv/**", "/srvx/a.img", False),
        ("/srv/**/a.img", "/srv/x/y/a.img", True),
        ("/dev/sd?", "/dev/sda", True),
        ("/dev/sd?", "/dev/sda1", False),
        ("/dev/sd?", "/dev/sd/", False),
        ("/dev/sd[a-c]", "/dev/sdb", True),
        ("/dev/sd[a-c]", "/dev/sdd", False),
        ("/dev/sd[!a]", "/dev/sdb", True),
        ("/dev/sd[!a]", "/dev/sda", False),
        ("/dev/sd[!a]x", "/dev/sd/x", False),
        ("/dev/sd[a", "/dev/sd[a", True),
        ("/srv/(a|b)+", "/srv/a", False),
        ("/srv/*", "/srv/new\nline", True),
        ("nbd://storage/*", "nbd://storage/vol1", True),
        ("nbd://storage/*", "nbd://storage:1/vol1", False),
        ("nbd://storage/*", "nbd://storage/a/b", False),
        ("nbd+unix:///*?socket=/run/*.sock", "nbd+unix:///vol1?socket=/run/nbd.sock", True),
        ("nbd+unix:///*?socket=/run/*.sock", "nbd+unix:///vol1?socket=/run/x/nbd.sock", False),
        ("/**", "nbd://storage/vol1", False),
    ],
)
def test_pattern(pattern: str, path: str, is_allowed: bool) -> None:
    assert AllowedPaths([pattern]).allows(path) is is_allowed


def test_one_of_several_is_enough_and_none_allows_nothing() -> None:
    assert AllowedPaths(["/a", "/b"]).allows("/b")
    assert not AllowedPaths([]).allows("/b")
    assert str(AllowedPaths([])) == "nothing"
    assert str(AllowedPaths(["/a", "/b"])) == "/a, /b"


@pytest.mark.parametrize("pattern", ["", "srv/*", "/srv/../etc/*", "/srv//a", "/srv/./a", "/srv/"])
def test_a_pattern_that_no_real_path_can_match_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="absolute paths"):
        AllowedPaths([pattern])
