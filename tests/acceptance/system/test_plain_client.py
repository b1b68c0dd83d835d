"""A plain NATS client drives the system, and finds and hears what the stock program does."""

import json

from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.whole_system import HOST, System

CLOUDEVENTS = {"ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time"}


def test_every_command_works_with_an_empty_payload(system: System, pair: Pair) -> None:
    """All but `setup`, which has something to say; an empty `throttle` lifts the limit."""
    system.set_up("vol1", pair.source, pair.target)

    def by_hand(*verbs: str) -> list[object]:
        return [system.client.ask(f"cutover.control.{verb}.vol1").accepted()["state"] for verb in verbs]

    states = by_hand("pause", "sync", "throttle", "resume")
    system.client.until_state("vol1", "source-selected")
    states += by_hand("select-target", "select-source", "abort")
    system.client.until("vol1", lambda status: not status["error_flag"])
    states += by_hand("cleanup")
    states[3] = "syncing"  # or further: a small volume is copied at once
    assert states == [
        "setup", "syncing", "syncing", "syncing", "target-selected", "source-selected", "setup", None,
    ]  # fmt: skip


def test_success_means_decided_in_the_witness_and_in_the_journal(system: System, pair: Pair) -> None:
    reply = system.set_up("vol1", pair.source, pair.target)
    assert (reply["witness"], reply["journal"]) == (True, True)
    witness = json.loads(system.witness("vol1").read_bytes())["witness"]
    record = system.client.journal("vol1")[-1].record
    assert witness["decision"] == reply["decision"] == record["decision"]
    assert witness["uuid"] == reply["uuid"] == record["uuid"]


def test_query_tells_everything_that_is_promised(system: System, pair: Pair) -> None:
    system.set_up("vol1", pair.source, pair.target)
    status = json.loads(system.cutover("query", "vol1", "--json").stdout)
    assert set(status) >= {
        "name", "uuid", "state", "attempt", "error_flag", "authority", "faults", "size_bytes", "synced_bytes",
        "rate_bytes_per_s", "eta_s", "paused", "throttle_bytes_per_s", "host", "source", "target", "export_uri",
        "connections", "io_engine",
    }  # fmt: skip
    assert status["export_uri"] == system.export("vol1")
    assert status["host"] == HOST
    assert status["size_bytes"] == pair.source.stat().st_size
    assert status["warnings"] == []


def test_services_tell_of_themselves_and_count(system: System) -> None:
    before = system.client.ask("$SRV.STATS.cutover-state-control").body
    system.client.refused("query", "nobody")
    after = system.client.ask("$SRV.STATS.cutover-state-control").body
    counts = [
        next(each for each in stats["endpoints"] if each["name"] == "query") for stats in (before, after)
    ]
    assert counts[1]["num_requests"] == counts[0]["num_requests"] + 1
    assert counts[1]["num_errors"] == counts[0]["num_errors"] + 1
    assert counts[1]["last_error"].startswith("unknown-migration")
    info = system.client.ask("$SRV.INFO.cutover-write-cloning").body
    metadata = {"host": HOST, "run": "1", "pid": str(system.pid("write_cloning"))}
    assert info["metadata"].items() >= metadata.items()


def test_records_carry_cloudevents_headers(system: System, pair: Pair) -> None:
    with system.client.heard("cutover.journal.vol1.>") as news:
        system.set_up("vol1", pair.source, pair.target)
        record = news.get(timeout=10)
    headers = {name.lower(): value for name, value in (record.headers or {}).items()}
    assert set(headers) >= CLOUDEVENTS
    assert headers["ce-specversion"] == "1.0"


def test_progress_is_told_while_copying_and_the_last_word_is_kept(system: System, pair: Pair) -> None:
    system.set_up("vol1", pair.source, pair.target)
    system.client.command("throttle", "vol1", bytes_per_s=1 << 20)
    with system.client.heard("cutover.progress.vol1") as news:
        system.client.command("sync", "vol1")
        synced = [json.loads(news.get(timeout=10).data)["synced_bytes"] for _ in range(3)]
    assert synced == sorted(synced)
    assert synced[-1] > 0
    assert system.client.last_progress("vol1")["synced_bytes"] >= synced[-1]
