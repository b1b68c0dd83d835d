"""How remote exports are named: what is understood, what it is told as, and what is refused with the forms that are."""

import pytest

from services.write_cloning.devices.errors import UriNotSupportedError
from services.write_cloning.devices.remote_uri import RemoteUri, is_remote, parse_remote


@pytest.mark.parametrize(
    ("uri", "meant", "told"),
    [
        ("nbd://h/e", RemoteUri(export="e", host="h"), "nbd://h/e"),
        ("nbd://h:10809/e", RemoteUri(export="e", host="h"), "nbd://h/e"),
        ("nbd://H:1/a/b%20c", RemoteUri(export="a/b c", host="h", port=1), "nbd://h:1/a/b%20c"),
        ("nbd://h", RemoteUri(export="", host="h"), "nbd://h/"),
        ("nbd://[::1]:7/e", RemoteUri(export="e", host="::1", port=7), "nbd://[::1]:7/e"),
        ("NBD://h//e", RemoteUri(export="/e", host="h"), "nbd://h//e"),
        ("nbd+unix:///e?socket=/s", RemoteUri(export="e", socket_path="/s"), "nbd+unix:///e?socket=/s"),
        ("nbd+unix:///?socket=%2Fa%20b", RemoteUri(export="", socket_path="/a b"), "nbd+unix:///?socket=/a%20b"),
    ],
)  # fmt: skip
def test_uri_is_understood_and_told_in_one_way(uri: str, meant: RemoteUri, told: str) -> None:
    assert is_remote(uri)
    assert parse_remote(uri) == meant
    assert str(meant) == told
    assert parse_remote(told) == meant


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("nbds://h/e", "TLS"),
        ("nbds+unix:///e?socket=/s", "TLS"),
        ("nbd+ssh://h/e", "no URI of a remote export"),
        ("nbd://", "no URI of a remote export"),
        ("nbd://h/e?socket=/s", "no URI of a remote export"),
        ("nbd://h:port/e", "no URI of a remote export"),
        ("nbd://h:99999/e", "no URI of a remote export"),
        ("nbd://user@h/e", "says more"),
        ("nbd://h/e#x", "says more"),
        ("nbd://h/%00", "says more"),
        ("nbd://h/%ff", "no URI of a remote export"),
        ("nbd://h/" + "e" * 4097, "4096 bytes"),
        ("nbd+unix:///e", "no URI of a remote export"),
        ("nbd+unix:///e?socket=s", "not absolute"),
        ("nbd+unix:///e?socket=/s&x=1", "no URI of a remote export"),
        ("nbd+unix://h/e?socket=/s", "no URI of a remote export"),
        ("nbd+unix:///e?socket=/" + "s" * 107, "107 bytes"),
    ],
)
def test_what_is_not_understood_is_refused(uri: str, why: str) -> None:
    assert is_remote(uri)
    with pytest.raises(UriNotSupportedError, match=why):
        parse_remote(uri)


@pytest.mark.parametrize("uri", ["/dev/nbd0", "file:///nbd", "http://h/", "nbd:h", ""])
def test_what_is_local_or_nothing_is_not_remote(uri: str) -> None:
    assert not is_remote(uri)
