"""Monitoring with the keys that `cutover init` made: the monitor's for looking, the operator's for commands, and no more."""

from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.acceptance.system.background import Background
from tests.acceptance.system.devices import MIB
from tests.acceptance.system.page_watcher import Watcher, logged_in, monitored, post
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.secured import SecuredSystem, secured_system


@pytest.fixture
def secured(background: Background) -> Iterator[SecuredSystem]:
    with secured_system(background) as system:
        yield system


def test_monitor_s_key_is_enough_to_look_and_the_operator_s_to_command(secured: SecuredSystem) -> None:
    system = secured
    seed = system.etc / "secrets/operator.nk"
    config = system.etc / "services/monitoring.toml"
    with monitored(system, f'operator_nkey_seed_file = "{seed}"', config=config) as monitoring:
        pair = make_pair(system, "vol1", size_bytes=8 * MIB)
        system.set_up("vol1", pair.source, pair.target)
        watcher = Watcher(monitoring.url, "vol1")
        watcher.until(lambda: watcher.titles() == ["Set up"], "its story")
        watcher.until(lambda: watcher.around["durability"]["is_established"], "the journal syncs")
        watcher.until(lambda: all(each["count"] == 1 for each in watcher.around["services"]), "the services")
        origin, secrets = logged_in(monitoring)
        reply = post(f"{origin}/migrations/vol1/command/sync", {}, origin, **secrets).body
        assert reply["state"] in {"syncing", "source-selected"}
        watcher.until(lambda: watcher.rows["vol1"]["state"] == "source-selected", "copied")
        assert "not permit" not in monitoring.log()


def test_end_of_the_certificate_that_the_server_shows_is_a_metric(secured: SecuredSystem) -> None:
    shown = x509.load_pem_x509_certificate((secured.etc / "tls/nats.pem").read_bytes())
    name = "cutover_nats_certificate_not_after_timestamp_seconds"
    with monitored(secured, config=secured.etc / "services/monitoring.toml") as monitoring:
        watcher = Watcher(monitoring.url)
        watcher.until(lambda: watcher.around["certificate"], "the certificate")
        assert monitoring.metrics()[name] == shown.not_valid_after_utc.timestamp()
