"""Monitoring beside the real system: it learns of everything, survives what it watches, and nobody notices when it stops."""

import os
import subprocess
from pathlib import Path

from shared.bus.nkeys import new_key_pair
from tests.acceptance.system.devices import MIB
from tests.acceptance.system.page_watcher import Watcher, logged_in, monitored, post
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.whole_system import CLONING, HOST, System

_DATA = "write -P 7 0 4M"


def write_and_read(system: System, name: str) -> None:
    """Some requests of an application."""
    subprocess.run(
        ["qemu-io", "-f", "raw", "-c", _DATA, "-c", "read 0 4M", system.export(name)],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip


def test_whole_life_is_told_as_it_happens(system: System) -> None:
    pair = make_pair(system, "life", size_bytes=16 * MIB)
    client = system.client
    with monitored(system) as monitoring:
        watcher = Watcher(monitoring.url, "life")
        watcher.until(lambda: watcher.around["link"]["is_connected"], "NATS")
        system.set_up("life", pair.source, pair.target)
        watcher.until(lambda: watcher.rows["life"]["state"] == "setup", "setup")
        watcher.until(lambda: set(watcher.detail["cells"]) == {"x"}, "everything differs")
        watcher.until(lambda: "sync" in watcher.detail["allowed"], "what is allowed")
        write_and_read(system, "life")
        watcher.until(lambda: watcher.detail["total_writes"] and watcher.detail["total_reads"], "requests")
        watcher.until(lambda: any(point[3] for point in watcher.detail["points"]), "a rate of writes")
        watcher.until(lambda: any(point[5] for point in watcher.detail["points"]), "a latency of writes")
        client.command("throttle", "life", bytes_per_s=8 * MIB)
        client.command("sync", "life")
        watcher.until(
            lambda: watcher.rows["life"]["state"] == "syncing" and watcher.rows["life"]["flag"], "syncing"
        )
        watcher.until(
            lambda: {"s", "x"} <= set(watcher.detail["cells"].replace("d", "s")), "a copy half done"
        )
        client.command("throttle", "life")
        watcher.until(lambda: watcher.rows["life"]["state"] == "source-selected", "copied")
        watcher.until(lambda: set(watcher.detail["cells"]) <= {"s", "d"}, "everything in sync")
        metrics = monitoring.metrics()
        assert metrics['cutover_error_flag{migration="life"}'] == 1
        assert metrics['cutover_synced_bytes{migration="life"}'] == 16 * MIB
        assert metrics["cutover_journal_sync_always"] == 1
        assert metrics[f'cutover_host_up{{host="{HOST}"}}'] == 1
        client.command("verify", "life")
        watcher.until(lambda: watcher.detail["verified_at"], "both sides are equal")
        client.command("select-target", "life")
        client.command("commit", "life")
        watcher.until(
            lambda: watcher.rows["life"]["state"] == "committed" and not watcher.rows["life"]["flag"],
            "committed",
        )
        wanted = [
            "Set up",
            "Error flag set",
            "Attempt 1 began",
            "Copied",
            "Reads moved to the target",
            "Commit asked for",
        ]
        watcher.until(
            lambda: watcher.titles() == [*wanted, "Committed", "Error flag clear"], "how it got there"
        )
        client.command("cleanup", "life", disconnect=True)
        watcher.until(lambda: "life" not in watcher.rows, "gone")
        watcher.until(
            lambda: any(event["title"] == "Cleaned up" for event in watcher.events), "the last event"
        )
        assert 'cutover_error_flag{migration="life"}' not in monitoring.metrics()


def test_what_was_before_is_read_from_the_journal(system: System) -> None:
    """The service begins after everything has happened."""
    pair = make_pair(system, "old", size_bytes=8 * MIB)
    system.set_up("old", pair.source, pair.target)
    system.client.command("sync", "old")
    system.client.until_state("old", "source-selected")
    system.client.command("abort", "old")
    system.client.until_state("old", "setup")
    with monitored(system) as monitoring:
        watcher = Watcher(monitoring.url, "old")
        watcher.until(lambda: watcher.titles()[-1:] == ["Error flag clear"], "how it got there")
        assert "Given up by the operator" in watcher.titles()
        watcher.until(lambda: any(event["migration"] == "old" for event in watcher.events), "the feed")
        watcher.until(lambda: watcher.around["durability"]["is_established"], "the journal syncs")
        watcher.until(lambda: all(each["count"] == 1 for each in watcher.around["services"]), "the services")


def test_host_and_nats_may_go_and_come(stoppable_system: System) -> None:
    system = stoppable_system
    pair = make_pair(system, "crash", size_bytes=8 * MIB)
    with monitored(system) as monitoring:
        watcher = Watcher(monitoring.url, "crash")
        system.set_up("crash", pair.source, pair.target)
        system.client.command("throttle", "crash", bytes_per_s=MIB)
        system.client.command("sync", "crash")
        watcher.until(lambda: watcher.rows["crash"]["state"] == "syncing", "syncing")
        system.kill_service(CLONING)
        watcher.until(lambda: not watcher.around["hosts"][0]["is_up"], "the host is away")
        system.start_service(CLONING)
        watcher.until(lambda: watcher.around["hosts"][0]["is_up"], "the host is back")
        watcher.until(
            lambda: watcher.rows["crash"]["state"] == "setup" and watcher.rows["crash"]["faults"] == 1,
            "a fault",
        )
        watcher.until(lambda: "Back on the source after a crash" in watcher.titles(), "its story")
        assert monitoring.metrics()['cutover_attempt_faults{migration="crash",side="target"}'] == 1
        system.stop_nats()
        watcher.until(lambda: not watcher.around["link"]["is_connected"], "NATS is away")
        assert watcher.rows["crash"]["state"] == "setup"  # still there, with its age
        assert "cutover_journal_sync_always" not in monitoring.metrics()  # nobody can tell at present
        system.start_nats()
        watcher.until(lambda: watcher.around["link"]["is_connected"], "NATS is back")
        watcher.until(lambda: watcher.around["durability"]["is_established"], "the journal syncs, as before")
        system.client.command("sync", "crash")
        watcher.until(lambda: watcher.rows["crash"]["state"] in {"syncing", "source-selected"}, "it goes on")


def test_service_that_begins_without_nats_waits_for_it(stoppable_system: System) -> None:
    system = stoppable_system
    system.stop_nats()
    try:
        with monitored(system) as monitoring:
            assert monitoring.metrics()["cutover_nats_connected"] == 0
            watcher = Watcher(monitoring.url)
            watcher.until(lambda: not watcher.around["link"]["is_connected"], "NATS is away")
            system.start_nats()
            watcher.until(lambda: watcher.around["link"]["is_connected"], "NATS is there")
            assert monitoring.said(r"(connected to NATS at \S+)\s+$")  # so that its last word is no warning
    finally:
        if not system.is_nats_running:
            system.start_nats()


def test_operator_commands_a_real_migration(system: System) -> None:
    pair = make_pair(system, "led", size_bytes=8 * MIB)
    system.set_up("led", pair.source, pair.target)
    seed = system.folder / "operator.nk"
    seed.write_text(new_key_pair(os.urandom(32)).seed + "\n")
    seed.chmod(0o600)
    with monitored(system, f'operator_nkey_seed_file = "{seed}"') as monitoring:
        origin, secrets = logged_in(monitoring)
        watcher = Watcher(monitoring.url, "led")
        watcher.until(lambda: watcher.rows["led"]["state"] == "setup", "setup")
        reply = post(f"{origin}/migrations/led/command/sync", {}, origin, **secrets).body
        assert reply["state"] in {"syncing", "source-selected"}
        watcher.until(lambda: watcher.rows["led"]["state"] == "source-selected", "copied")
        token = Path(monitoring.said(r"access token in (\S+)"))
        assert token.exists()
    assert not token.parent.exists()  # nothing is left of it after SIGTERM
    assert system.client.query("led")["state"] == "source-selected"
