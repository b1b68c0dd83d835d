"""The sockets that volumes are served on, as configured and as left by a parent."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.write_cloning.export.listener import Listener, listen_tcp, listen_unix
from services.write_cloning.listening import check_places, open_listeners, tls_of
from services.write_cloning.offering import export_uri
from shared.clock import SystemClock
from shared.config.load import ConfigError
from shared.config.model import OPEN_TO_EVERYONE, NbdConfig
from shared.migration.refusals import Code, Refusal
from tests.support.certificates import NOT_YET, Pki, write, write_key

USUAL = "usual.sock"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(Path(tmp_path_factory.mktemp("pki")))


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> Iterator[list[Listener]]:
    """What a parent has left: a Unix socket and a TCP one."""
    listeners = [listen_unix(short_path / "left"), listen_tcp("127.0.0.1", 0)]
    monkeypatch.setattr(
        "services.write_cloning.listening.inherited_listeners", lambda environment, pid: list(listeners)
    )
    yield listeners
    for listener in listeners:
        listener.close()


def close(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.close()


def test_without_an_address_there_is_the_usual_socket(short_path: Path) -> None:
    (listener,) = open_listeners(NbdConfig(), short_path / USUAL)
    assert listener.address == str(short_path / USUAL)
    listener.close()


def test_rights_go_for_every_unix_socket(short_path: Path) -> None:
    config = NbdConfig(listen=(f"unix://{short_path}/a", f"unix://{short_path}/b"), socket_group=0)
    listeners = open_listeners(config, short_path / USUAL)
    assert [stat.S_IMODE((short_path / name).stat().st_mode) for name in "ab"] == [0o660] * 2
    close(listeners)


def test_account_of_nobody_is_told_by_its_key_alone(short_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        open_listeners(NbdConfig(socket_owner="nosuch"), short_path / USUAL)
    assert caught.value.message == "nbd.socket_owner: there is no user named 'nosuch'."


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"socket_group": "nosuch"}, r"^nbd\.socket_group: there is no group named 'nosuch'\.$"),
        (
            {"listen": ("unix:///no/such/s",)},
            r"^nbd\.listen: unix:///no/such/s .*: there is no folder /no/such\.$",
        ),
    ],
)
def test_what_no_start_mends_is_a_mistake_of_the_configuration(
    given: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failing, systemd starts the host again and again, which waits for NATS each time before it says why."""
    with pytest.raises(ConfigError, match=why):
        check_places(NbdConfig(**given))
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    check_places(NbdConfig(**given))


def test_sockets_that_were_opened_before_one_that_cannot_be_are_closed(short_path: Path) -> None:
    config = NbdConfig(listen=(f"unix://{short_path}/a", f"unix://{short_path}/none/b"))
    with pytest.raises(Refusal, match="cannot be listened on: there is no folder"):
        open_listeners(config, short_path / USUAL)
    assert not (short_path / "a").exists()


def test_tcp_that_was_left_is_refused_where_whoever_comes_could_read_and_write(
    left: list[Listener], short_path: Path
) -> None:
    with pytest.raises(Refusal) as caught:
        open_listeners(NbdConfig(), short_path / USUAL)
    assert caught.value.code is Code.BAD_REQUEST
    assert "would be open to everyone who reaches it" in caught.value.message
    assert "127.0.0.1" in caught.value.message
    assert not (short_path / "left").exists()


@pytest.mark.parametrize(
    "config",
    [
        NbdConfig(unencrypted_tcp=OPEN_TO_EVERYONE),
        NbdConfig(tls_certificate_file="/c", tls_key_file="/k", tls_client_ca_file="/a"),
    ],
)
def test_tcp_that_was_left_is_taken_with_certificates_or_in_words(
    left: list[Listener], short_path: Path, config: NbdConfig
) -> None:
    assert [each.is_tcp for each in open_listeners(config, short_path / USUAL)] == [False, True]


def test_tls_is_there_if_files_are_named(pki: Pki) -> None:
    with tls_of(NbdConfig(), SystemClock()) as tls:
        assert tls is None
    config = NbdConfig(tls_certificate_file=str(pki.certificate), tls_key_file=str(pki.key))
    with tls_of(config, SystemClock()) as tls:
        assert tls is not None


def test_files_that_will_not_do_are_a_mistake_of_the_configuration(pki: Pki) -> None:
    """Whoever starts the host again and again does not mend them."""
    config = NbdConfig(tls_certificate_file=str(pki.certificate), tls_key_file="/no/such.key")
    told = r"^nbd.tls_key_file: /no/such.key: No such file or directory\.$"
    with pytest.raises(ConfigError, match=told), tls_of(config, SystemClock()):
        pass


def test_a_certificate_of_tomorrow_is_a_refusal(pki: Pki, tmp_path: Path) -> None:
    """A machine whose clock is not set yet may start the host again until it is."""
    issued, key = pki.authority.issue("localhost", NOT_YET, is_server=True)
    certificate = str(write(tmp_path / "tomorrow.pem", issued))
    config = NbdConfig(
        tls_certificate_file=certificate, tls_key_file=str(write_key(tmp_path / "its.key", key))
    )
    with pytest.raises(Refusal, match="is not valid before"), tls_of(config, SystemClock()):
        pass
    other = write_key(tmp_path / "other.key", pki.stranger.key)
    config = NbdConfig(tls_certificate_file=certificate, tls_key_file=str(other))
    with (
        pytest.raises(ConfigError, match="it is not the key of the certificate"),
        tls_of(config, SystemClock()),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "has_tls", "uri"),
    [
        ("/run/x.sock", False, "nbd+unix:///vol1?socket=/run/x.sock"),
        ("192.0.2.1:10809", True, "nbds://192.0.2.1:10809/vol1"),
        ("[::1]:10809", True, "nbds://[::1]:10809/vol1"),
        ("127.0.0.1:10809", False, "nbd://127.0.0.1:10809/vol1"),
    ],
)
def test_uri_tells_whether_there_is_tls(address: str, has_tls: bool, uri: str) -> None:
    assert export_uri(address, "vol1", has_tls=has_tls) == uri


def test_clients_elsewhere_are_told_the_name_of_the_machine() -> None:
    (listener,) = open_listeners(
        NbdConfig(listen=("tcp://0.0.0.0:0",), unencrypted_tcp=OPEN_TO_EVERYONE), Path("/unused")
    )
    assert listener.reachable_address.partition(":")[0] == socket.gethostname()
    listener.close()
