"""Volumes over TCP: a whole migration under TLS, and a host that does not begin with files that will not do."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.whole_system import CLONING, ROOT, System
from tests.support.certificates import EXPIRED, Pki, write, write_key


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(Path(tmp_path_factory.mktemp("pki")))


def settings(pki: Pki, **other: str) -> dict[str, str]:
    """What a host is told by its environment."""
    nbd = {
        "LISTEN": "tcp://127.0.0.1:0",
        "TLS_CERTIFICATE_FILE": str(pki.certificate),
        "TLS_KEY_FILE": str(pki.key),
        "TLS_CLIENT_CA_FILE": str(pki.ca),
    }
    return {f"CUTOVER_NBD_{key}": value for key, value in (nbd | other).items()}


def test_live_volume_is_migrated_over_tls_and_loses_nothing(
    own_system: Callable[..., System], pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in settings(pki).items():
        monkeypatch.setenv(variable, value)
    system = own_system()
    pair = make_pair(system, size_bytes=16 << 20)
    system.set_up("vol1", pair.source, pair.target)
    uri = str(system.client.query("vol1")["export_uri"])
    assert uri.startswith("nbds://127.0.0.1:")
    refused = subprocess.run(
        ["nbdinfo", "--size", uri.replace("nbds:", "nbd:")], capture_output=True, check=False
    )
    assert b"server requires TLS" in refused.stderr
    with Application(f"{uri}?tls-certificates={pki.good}", blocks=2048) as application:
        application.until_operations(100)
        (connection,) = system.client.query("vol1")["connections"]
        assert connection["peer"].startswith("client good (127.0.0.1:")
        system.client.command("sync", "vol1")
        system.client.until_state("vol1", "source-selected")
        system.client.command("select-target", "vol1")
        application.until_operations(100)
        system.client.command("commit", "vol1")
        application.until_operations(100)
        report = application.stop()
    assert report.errors == []
    assert report.differences(pair.target) == []
    assert system.stop_service(CLONING) == 0


def test_host_does_not_begin_with_files_that_will_not_do_and_tells_all_that_is_wrong(
    pki: Pki, short_path: Path
) -> None:
    """At once, and not when NATS has answered."""
    certificate, _ = pki.authority.issue("localhost", EXPIRED, is_server=True)
    expired, other_key = (
        write(short_path / "old.pem", certificate),
        write_key(short_path / "k", pki.stranger.key),
    )
    host = {"CUTOVER_HOST_NAME": "h1", "CUTOVER_HOST_STATE_DIR": str(short_path / "state")}
    wrong = settings(
        pki, TLS_CERTIFICATE_FILE=str(expired), TLS_KEY_FILE=str(other_key), TLS_CLIENT_CA_FILE="/no.pem"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "services.write_cloning"],
        cwd=ROOT,
        env=os.environ | host | wrong | {"CUTOVER_NATS_URL": "nats://127.0.0.1:9"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2, "it would be started again and again"
    assert f"nbd.tls_certificate_file: {expired}: the certificate of CN=localhost has expired" in ended.stderr
    assert f"nbd.tls_key_file: {other_key}: it is not the key of the certificate" in ended.stderr
    assert "nbd.tls_client_ca_file: /no.pem: No such file or directory" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "waiting for NATS" not in ended.stderr
