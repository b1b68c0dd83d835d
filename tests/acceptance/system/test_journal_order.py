"""The order of the journal's records, and the chain that they form."""

import hashlib
import json

from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import HOST, System


def test_records_of_a_whole_life_are_in_the_order_that_keeps_data_safe(system: System, pair: Pair) -> None:
    """The flag before `syncing`, the intent before `committed`, the clear last of all."""
    length = len(system.client.journal("vol1"))
    system.set_up("vol1", pair.source, pair.target)
    bring_to(system, "vol1", "committed")
    assert system.witness("vol1").exists()
    system.client.command("cleanup", "vol1")
    assert system.client.words("vol1")[length:] == [
        "state setup",
        "flag-set",
        "state syncing",
        "state source-selected",
        "state target-selected",
        "intent",
        "state committed",
        "flag-clear",
        "tombstone",
    ]
    assert not system.witness("vol1").exists()


def test_records_of_an_abort_end_with_the_clear(system: System, pair: Pair) -> None:
    length = len(system.client.journal("vol1"))
    system.set_up("vol1", pair.source, pair.target)
    bring_to(system, "vol1", "source-selected")
    system.client.command("abort", "vol1")
    system.client.until("vol1", lambda status: not status["error_flag"])
    assert system.client.words("vol1")[length:] == [
        "state setup", "flag-set", "state syncing", "state source-selected", "state setup", "flag-clear",
    ]  # fmt: skip


def test_every_record_stands_on_the_one_before(system: System, pair: Pair) -> None:
    """By index and by the digest of the bytes as they are stored; by one UUID, with decisions that only grow."""
    system.set_up("vol1", pair.source, pair.target)
    bring_to(system, "vol1", "committed")
    chain = system.client.journal("vol1")
    digest = ""
    for index, each in enumerate(chain, start=chain[0].record["index"]):
        assert each.record["index"] == index
        assert each.record["previous_digest"] == digest
        digest = hashlib.sha256(each.payload).hexdigest()
    mine = [each.record for each in chain if each.record["uuid"] == system.client.query("vol1")["uuid"]]
    decisions = [record["decision"] for record in mine if record["kind"] == "state"]
    assert decisions == sorted(set(decisions))
    assert {record["host"] for record in mine} == {HOST}
    assert all(record["version"] == 1 for record in mine)


def test_witness_names_the_last_record_that_it_relied_on(system: System, pair: Pair) -> None:
    system.set_up("vol1", pair.source, pair.target)
    bring_to(system, "vol1", "target-selected")
    witness = json.loads(system.witness("vol1").read_bytes())["witness"]
    digests = [hashlib.sha256(each.payload).hexdigest() for each in system.client.journal("vol1")]
    flag = [each for each in system.client.journal("vol1") if each.record["kind"] == "flag-set"][-1]
    assert witness["tail_digest"] == digests[-1]
    assert witness["flag_digest"] == hashlib.sha256(flag.payload).hexdigest()
    assert witness["state"] == "target-selected"
