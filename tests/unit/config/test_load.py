"""The configuration: one file and the environment, checked as a whole."""

from pathlib import Path

import pytest

from shared.config.load import ConfigError, check, environment_name, known_keys, load
from shared.config.model import MIB, Config, HostConfig, NbdConfig

WHOLE = """
[nats]
url = "nats://alice:secret@nats.example:4222"
monitor_url = "http://nats.example:8222"
accept_unsynced_journal = true

[host]
name = "h1"
state_dir = "/var/lib/cutover"
allowed_devices = ["/dev/vg0/*", "/srv/*.img"]
io_timeout_s = 7
shutdown_timeout_s = 30.5
region_size_bytes = 2097152
io_engine = "threads"
direct_io = "never"
inflight_budget_bytes = 134217728

[nbd]
listen = ["unix:///run/cutover.sock", "tcp://127.0.0.1:10809"]
tls_certificate_file = "/etc/cutover/nbd.pem"
tls_key_file = "/etc/cutover/nbd.key"
tls_client_ca_file = "/etc/cutover/ca.pem"
socket_group = 107
"""
IN_WORDS = "everyone on the network may read and write these volumes"
COMMANDS_IN_WORDS = "everyone on the way may read the access token, and give commands with it"

VALUES = {
    "nats.url": "nats://n:1",
    "nats.monitor_url": "http://n:2",
    "nats.accept_unsynced_journal": "true",
    "nats.nkey_seed_file": "/secrets/a.nk",
    "nats.tls_ca_file": "/tls/ca.pem",
    "nats.inbox_prefix": "_INBOX_a",
    "host.name": "7",  # a name, though TOML would read a number
    "host.state_dir": "/s",
    "host.allowed_devices": "/a/*,/b/*",
    "host.io_timeout_s": "1.5",
    "host.shutdown_timeout_s": "2",
    "host.target_flush_interval_s": "3",
    "host.region_size_bytes": "131072",
    "host.io_engine": "io_uring",
    "host.region_map": "false",
    "host.direct_io": "always",
    "host.inflight_budget_bytes": "67108864",
    "nbd.listen": '["unix:///a"]',
    "nbd.tls_certificate_file": "/a.pem",
    "nbd.tls_key_file": "/a.key",
    "nbd.tls_client_ca_file": "/b.pem",
    "nbd.unencrypted_tcp": IN_WORDS,
    "nbd.socket_owner": "alice",
    "nbd.socket_group": "1000",
    "log.format": "json",
    "log.level": "warning",
    "monitoring.listen": "[::1]:9",
    "monitoring.operator_nkey_seed_file": "/o",
    "monitoring.access_token_file": "/t",
    "monitoring.host_names": "a.example,b",
    "monitoring.unencrypted_commands": COMMANDS_IN_WORDS,
}


def mistakes(file: Path | None, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, environment)
    return str(caught.value)


def write(folder: Path, text: str) -> Path:
    file = folder / "cutover.toml"
    file.write_text(text)
    return file


def test_without_a_file_there_are_defaults() -> None:
    config = load(None, {})
    assert config == Config()
    assert config.nats.url == "nats://127.0.0.1:4222"
    assert config.host is None


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    config = load(write(tmp_path, WHOLE), {})
    assert config.nats.accept_unsynced_journal
    assert config.host == HostConfig(
        name="h1",
        state_dir="/var/lib/cutover",
        allowed_devices=("/dev/vg0/*", "/srv/*.img"),
        io_timeout_s=7,
        shutdown_timeout_s=30.5,
        region_size_bytes=2 * MIB,
        io_engine="threads",
        direct_io="never",
        inflight_budget_bytes=128 * MIB,
    )
    assert config.nbd == NbdConfig(
        listen=("unix:///run/cutover.sock", "tcp://127.0.0.1:10809"),
        tls_certificate_file="/etc/cutover/nbd.pem",
        tls_key_file="/etc/cutover/nbd.key",
        tls_client_ca_file="/etc/cutover/ca.pem",
        socket_group=107,
    )


def test_every_key_has_a_value_to_try() -> None:
    assert set(VALUES) == set(known_keys())


def test_every_key_can_be_overridden(tmp_path: Path) -> None:
    config = load(write(tmp_path, WHOLE), {environment_name(key): value for key, value in VALUES.items()})
    assert config.nats.url == "nats://n:1"
    assert config.host is not None
    assert config.host.name == "7"
    assert config.host.allowed_devices == ("/a/*", "/b/*")
    assert config.host.io_timeout_s == 1.5
    assert config.host.region_size_bytes == 131072
    assert config.host.io_engine == "io_uring"
    assert not config.host.region_map
    assert config.nbd.listen == ("unix:///a",)
    assert (config.nbd.socket_owner, config.nbd.socket_group) == ("alice", "1000")
    assert (config.log.format, config.log.level) == ("json", "warning")


def test_all_mistakes_are_told_at_once_by_their_keys(tmp_path: Path) -> None:
    text = """
    [nats]
    url = "http://x"
    [host]
    name = "Not A Name"
    io_timeout_s = 0
    region_size_bytes = 1000000
    io_engine = "magic"
    allowed_devices = ["relative/*", ""]
    [nbd]
    listn = []
    """
    told = mistakes(write(tmp_path, text), CUTOVER_HOST_IO_TIMEOUT="1")
    for key in (
        "nats.url", "host.name", "host.state_dir", "host.io_timeout_s", "host.region_size_bytes", "host.io_engine",
        "host.allowed_devices.0", "host.allowed_devices.1", "nbd.listn", "CUTOVER_HOST_IO_TIMEOUT",
    ):  # fmt: skip
        assert f"\n  {key}: " in told, key
    assert "host.allowed_devices.1: '' is neither" in told


@pytest.mark.parametrize("text", ["[other]\nx = 1", "nats = 7", "[nats]\nurl = 7", "not toml", "x = \xff"])
def test_what_is_unknown_or_malformed_is_refused(tmp_path: Path, text: str) -> None:
    assert mistakes(write(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere.toml" in mistakes(tmp_path / "nowhere.toml")


def test_a_variable_that_overrides_nothing_is_refused() -> None:
    assert "CUTOVER_NATS_URI: overrides no key" in mistakes(None, CUTOVER_NATS_URI="nats://x")


def test_variables_of_others_are_left_alone() -> None:
    assert load(None, {"CUTOVER_CONFIG": "/x", "PATH": "/bin", "NATS_URL": "x"}) == Config()


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    config = load(write(tmp_path, WHOLE), {})
    assert "secret" not in repr(config)
    assert config.nats.shown_url == "nats://nats.example:4222"


def test_secrets_are_not_in_the_mistakes_either(tmp_path: Path) -> None:
    assert "hunter2" not in mistakes(write(tmp_path, '[nats]\nurl = "natz://alice:hunter2@x"\nx = 1'))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("tcp://nbd.example:10809", "names no address"),
        ("tcp://127.0.0.1", "ends with no port"),
        ("tcp://127.0.0.1:65536", "ends with no port"),
        ("unix://relative.sock", "begins neither"),
        ("unix:///" + "x" * 107, "has a path of 108 bytes"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_told_with_what_is_allowed(address: str, why: str) -> None:
    told = mistakes(None, CUTOVER_NBD_LISTEN=address)
    assert f"nbd.listen.0: {address!r} {why}" in told
    assert "tcp://ADDRESS:PORT" in told


TCP = (
    "tcp://localhost:0",
    "tcp://127.0.0.2:65535",
    "tcp://[::1]:1",
    "tcp://0.0.0.0:10809",
    "tcp://[2001:db8::1]:9",
)
PAIR = {"CUTOVER_NBD_TLS_CERTIFICATE_FILE": "/c.pem", "CUTOVER_NBD_TLS_KEY_FILE": "/c.key"}
CLIENTS = {"CUTOVER_NBD_TLS_CLIENT_CA_FILE": "/ca.pem"}
WORDS = {"CUTOVER_NBD_UNENCRYPTED_TCP": IN_WORDS}


@pytest.mark.parametrize("address", TCP)
@pytest.mark.parametrize(
    ("given", "lacks"),
    [
        ({}, "set nbd.tls_certificate_file, nbd.tls_key_file and nbd.tls_client_ca_file"),
        (PAIR, "set nbd.tls_client_ca_file, so that clients show a certificate"),
    ],
)
def test_tcp_for_whoever_comes_is_refused_with_what_would_do(
    address: str, given: dict[str, str], lacks: str
) -> None:
    """On loopback, too: every user and every container on the host's network reaches it."""
    told = mistakes(None, CUTOVER_NBD_LISTEN=f"unix:///s,{address}", **given)
    (line,) = [line for line in told.splitlines() if line.startswith("  nbd.listen: ")]
    assert f"{address} would be open to everyone who reaches it" in line
    assert lacks in line
    assert f'nbd.unencrypted_tcp = "{IN_WORDS}"' in line


@pytest.mark.parametrize("address", TCP)
@pytest.mark.parametrize("given", [PAIR | CLIENTS, WORDS, PAIR | WORDS, PAIR | CLIENTS | WORDS])
def test_tcp_is_accepted_with_certificates_or_in_words(address: str, given: dict[str, str]) -> None:
    assert load(None, {"CUTOVER_NBD_LISTEN": address, **given}).nbd.listen == (address,)


@pytest.mark.parametrize("words", ["yes", "true", "", IN_WORDS.capitalize(), f"{IN_WORDS}."])
def test_words_are_those_and_no_others(words: str) -> None:
    assert f'nbd.unencrypted_tcp: is either not set, or exactly "{IN_WORDS}"' in mistakes(
        None, CUTOVER_NBD_UNENCRYPTED_TCP=words
    )


def test_a_unix_socket_needs_no_certificates() -> None:
    assert load(None, {"CUTOVER_NBD_LISTEN": "unix:///s"}).nbd.listen == ("unix:///s",)


@pytest.mark.parametrize(
    ("given", "missing"),
    [("TLS_CERTIFICATE_FILE", "tls_key_file"), ("TLS_KEY_FILE", "tls_certificate_file"),
     ("TLS_CLIENT_CA_FILE", "tls_certificate_file")],
)  # fmt: skip
def test_what_one_file_needs_is_told_by_its_key(given: str, missing: str) -> None:
    told = mistakes(None, **{f"CUTOVER_NBD_{given}": "/f"})
    assert f"\n  nbd.{missing}: required, because nbd.{given.lower()} is set" in told


@pytest.mark.parametrize("account", ["-1", "true", "''", "[1]", "1.5"])
def test_an_account_is_a_name_or_a_number(tmp_path: Path, account: str) -> None:
    file = write(tmp_path, f"[nbd]\nsocket_owner = {account}\nsocket_group = {account}\n")
    told = mistakes(file)
    assert "nbd.socket_owner: is a name or a number" in told
    assert "nbd.socket_group: is a name or a number" in told


@pytest.mark.parametrize("place", ["127.0.0.1:70000", "127.0.0.1:0", "127.0.0.1:x", ":4222", "", "[::1:4222"])
@pytest.mark.parametrize(("key", "scheme"), [("URL", "nats"), ("URL", "tls"), ("MONITOR_URL", "http")])
def test_a_url_names_a_server_and_a_port_that_there_is(key: str, scheme: str, place: str) -> None:
    told = mistakes(None, **{f"CUTOVER_NATS_{key}": f"{scheme}://alice:hunter2@{place}"})
    assert f"nats.{key.lower()}: names no server" in told
    assert "hunter2" not in told


def test_a_url_without_a_port_is_accepted() -> None:
    assert load(None, {"CUTOVER_NATS_URL": "tls://[::1]"}).nats.url == "tls://[::1]"


def test_an_address_of_this_host_is_accepted() -> None:
    address = "unix:///" + "x" * 106
    assert load(None, {"CUTOVER_NBD_LISTEN": address}).nbd.listen == (address,)


def test_mistakes_are_told_in_words_of_our_own(tmp_path: Path) -> None:
    assert "Value error" not in mistakes(write(tmp_path, "[host]\nname = 'X Y'\n[nats]\nurl = 'x'"))


def test_checking_what_was_read_leaves_it_as_it_was(tmp_path: Path) -> None:
    """What comes from the environment, a password perhaps, is not written where the document is."""
    document = {"nats": {"url": "nats://n:1"}}
    assert check(document, tmp_path, {"CUTOVER_NATS_URL": "nats://a:b@n:2"}).nats.url == "nats://a:b@n:2"
    assert document == {"nats": {"url": "nats://n:1"}}


# ------------------------------------------------------------------ the page


def page(listen: str, **more: str) -> dict[str, str]:
    given = {"listen": listen, "operator_nkey_seed_file": "/o", **more}
    return {f"CUTOVER_MONITORING_{key.upper()}": value for key, value in given.items()}


@pytest.mark.parametrize("listen", ["0.0.0.0:8321", "192.0.2.1:8321", "[::]:8321"])
def test_commands_over_plain_http_for_other_machines_want_a_sentence(listen: str) -> None:
    said = mistakes(None, **page(listen))
    assert f"the page is served without TLS on {listen}" in said
    assert COMMANDS_IN_WORDS in said
    assert load(None, page(listen, unencrypted_commands=COMMANDS_IN_WORDS)).monitoring.listen == listen
    assert load(None, {"CUTOVER_MONITORING_LISTEN": listen}).monitoring.listen == listen
    assert "is either not set, or exactly" in mistakes(None, **page(listen, unencrypted_commands="yes"))


@pytest.mark.parametrize("listen", ["127.0.0.1:8321", "[::1]:0", "localhost:1"])
def test_commands_on_loopback_want_none(listen: str) -> None:
    assert load(None, page(listen)).monitoring.operator_nkey_seed_file == "/o"


def test_names_of_the_page_are_names() -> None:
    assert load(None, {"CUTOVER_MONITORING_HOST_NAMES": "A.example"}).monitoring.host_names == ("a.example",)
    for wrong in ("a:80", "http://a", "a b", "*"):
        assert "is no name of a host" in mistakes(None, CUTOVER_MONITORING_HOST_NAMES=wrong)
