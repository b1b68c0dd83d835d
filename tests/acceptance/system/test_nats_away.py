"""NATS is away: whoever asks is told within five seconds; applications notice nothing; and when it is back, all goes on."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.acceptance.system.application import Application
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.whole_system import CLONING, System

BOUND_S = 5.0


def test_operators_command_says_so_within_five_seconds(own_system: Callable[..., System]) -> None:
    system = own_system()
    system.stop_nats()
    commands = (("query", "vol1"), ("commit", "vol1", "--yes"))
    with ThreadPoolExecutor() as threads:
        began = time.monotonic()
        for done in threads.map(lambda arguments: system.cutover(*arguments), commands):
            assert (done.returncode, done.stdout) == (1, "")
            assert f"NATS at {system.url} cannot be reached" in done.stderr
        assert time.monotonic() - began < BOUND_S
    system.start_nats()


def test_application_goes_on_and_the_migration_too_once_nats_is_back(
    own_system: Callable[..., System],
) -> None:
    system = own_system()
    client = system.client
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    client.command("sync", "vol1")
    client.until_state("vol1", "source-selected")
    before = client.journal_length()
    with Application(system.export("vol1")) as application:
        system.stop_nats()
        application.until_operations(200)
        system.start_nats()
        for service in ("fault_recording", "state_control", "startup", CLONING):
            system.wait_ready(service)
        assert client.journal_length() == before
        client.command("select-target", "vol1")
        application.until_operations(200)
        report = application.stop()
    assert report.errors == []
    client.command("commit", "vol1")
    assert report.differences(pair.target) == []
