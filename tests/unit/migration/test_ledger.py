"""The fold of a chain: what it says, and that it is never believed when it is not whole."""

from dataclasses import replace
from typing import Any

from shared.messages.codec import encode
from shared.migration.devices import DeviceIdentity, DeviceKind, Side
from shared.migration.ledger import Entry, Ledger, fold
from shared.migration.records import (
    GENESIS_DIGEST,
    AnyRecord,
    DevicePair,
    FaultRecord,
    FlagClearRecord,
    FlagSetRecord,
    IntentRecord,
    RepairRecord,
    StateRecord,
    TombstoneRecord,
    digest_of,
)
from shared.migration.states import Flag, State

DEVICES = DevicePair(
    source=DeviceIdentity(name="/s", kind=DeviceKind.FILE, token="inode:1:1", size_bytes=1 << 20),
    target=DeviceIdentity(name="/t", kind=DeviceKind.FILE, token="inode:1:2", size_bytes=1 << 20),
)


class Chain:
    """Builds a chain as the journal would store it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.uuid = "u1"
        self.attempt = 0
        self.decision = 0

    def add(self, kind: type, **fields: Any) -> Entry:
        last = self.entries[-1] if self.entries else None
        record: AnyRecord = kind(
            **{
                "migration": "vol1",
                "uuid": self.uuid,
                "attempt": self.attempt,
                "host": "h",
                "run": 1,
                "decision": self.decision,
                "operation_id": f"op{len(self.entries)}",
                "recorded_at": "2026-01-01T00:00:00Z",
                "index": last.record.index + 1 if last else 1,
                "previous_digest": last.digest if last else GENESIS_DIGEST,
            }
            | fields
        )
        entry = Entry(10 + len(self.entries), record, digest_of(encode(record)))
        self.entries.append(entry)
        return entry

    def state(self, state: State, authority: Side = Side.SOURCE, **fields: Any) -> Entry:
        self.decision += 1
        return self.add(StateRecord, state=state, authority=authority, trigger="x", **fields)

    def fault(self, side: Side, attempt: int | None = None) -> Entry:
        return self.add(
            FaultRecord,
            side=side,
            state=State.SYNCING,
            operation="write",
            cause="EIO",
            detected_at="2026-01-01T00:00:00Z",
            attempt=self.attempt if attempt is None else attempt,
        )

    @property
    def ledger(self) -> Ledger:
        return fold("vol1", self.entries)


def begun() -> Chain:
    chain = Chain()
    chain.state(State.SETUP, devices=DEVICES)
    return chain


def cloning() -> Chain:
    chain = begun()
    chain.attempt = 1
    chain.add(FlagSetRecord)
    chain.state(State.SYNCING)
    return chain


def test_nothing_recorded_is_no_migration() -> None:
    ledger = fold("vol1", [])
    assert not ledger.exists
    assert ledger.broken is None
    assert (ledger.state, ledger.flag, ledger.tail.sequence) == (None, Flag.NEVER, 0)


def test_the_last_records_are_the_facts() -> None:
    ledger = cloning().ledger
    assert (ledger.state, ledger.flag, ledger.attempt, ledger.devices) == (
        State.SYNCING,
        Flag.SET,
        1,
        DEVICES,
    )
    assert ledger.tail.index == 3
    assert ledger.broken is None


def test_a_flag_set_for_the_next_attempt_does_not_begin_it() -> None:
    chain = begun()
    chain.attempt = 1
    chain.add(FlagSetRecord)
    assert chain.ledger.attempt == 0


def test_faults_belong_to_their_attempt() -> None:
    chain = cloning()
    chain.fault(Side.TARGET)
    chain.state(State.SETUP)
    assert chain.ledger.fault_count(Side.TARGET) == 1
    chain.attempt = 2
    chain.state(State.SYNCING)
    assert chain.ledger.fault_count(Side.TARGET) == 0
    assert len(chain.ledger.all_faults) == 1


def test_a_fault_stored_before_its_decision_counts_once_the_decision_comes() -> None:
    chain = begun()
    chain.fault(Side.TARGET, attempt=1)
    assert chain.ledger.fault_count(Side.TARGET) == 0
    chain.attempt = 1
    chain.state(State.SETUP)
    assert chain.ledger.fault_count(Side.TARGET) == 1


def test_a_lost_record_in_the_middle_breaks_the_chain_and_what_follows_is_not_believed() -> None:
    chain = cloning()
    set_record = chain.entries[1]
    chain.add(FlagClearRecord, set_digest=set_record.digest)
    del chain.entries[2]
    ledger = chain.ledger
    assert ledger.broken is not None
    assert ledger.flag is Flag.SET
    assert ledger.tail.index == 2
    assert ledger.tail.sequence == chain.entries[-1].sequence  # a repair must go behind the strays


def test_an_altered_record_breaks_the_chain_behind_it() -> None:
    chain = cloning()
    altered = replace(chain.entries[1].record, host="other")
    chain.entries[1] = Entry(chain.entries[1].sequence, altered, digest_of(encode(altered)))
    assert chain.ledger.broken is not None


def test_a_record_of_another_uuid_breaks_the_chain() -> None:
    chain = begun()
    chain.uuid = "u2"
    chain.state(State.SYNCING)
    assert "u2" in str(chain.ledger.broken)


def test_a_repair_lets_the_chain_go_on_sets_the_flag_and_stands_for_the_witness() -> None:
    chain = cloning()
    lost = chain.entries.pop()
    chain.add(
        RepairRecord,
        index=3,
        previous_digest=chain.entries[-1].digest,
        witness_digest=lost.digest,
        state=State.SYNCING,
        authority=Side.SOURCE,
        target_fault=True,
        source_fault=False,
        reason="gone back",
        devices=DEVICES,
        decision=5,
    )
    ledger = chain.ledger
    assert ledger.broken is None
    assert ledger.contains(lost.digest)
    assert (ledger.flag, ledger.state, ledger.decision) == (Flag.SET, State.SYNCING, 5)
    assert ledger.fault_count(Side.TARGET) == 1


def test_strays_before_a_repair_do_not_count() -> None:
    chain = cloning()
    keep = chain.entries[1]
    chain.add(FlagClearRecord, set_digest=keep.digest)
    del chain.entries[2]
    repair = RepairRecord(
        migration="vol1",
        uuid="u1",
        attempt=1,
        host="h",
        run=2,
        decision=9,
        operation_id="repair",
        recorded_at="2026-01-01T00:00:00Z",
        index=3,
        previous_digest=keep.digest,
        witness_digest="w",
        state=State.SYNCING,
        authority=Side.SOURCE,
        target_fault=False,
        source_fault=False,
        reason="damaged",
        devices=DEVICES,
    )
    chain.entries.append(Entry(99, repair, digest_of(encode(repair))))
    ledger = chain.ledger
    assert ledger.broken is None
    assert ledger.flag is Flag.SET
    assert [type(entry.record) for entry in ledger.entries] == [StateRecord, FlagSetRecord, RepairRecord]


def test_a_tombstone_ends_a_life_and_the_chain_goes_on() -> None:
    chain = begun()
    chain.add(TombstoneRecord, state=State.SETUP)
    assert not chain.ledger.exists
    assert chain.ledger.tail.index == 2
    chain.uuid, chain.decision = "u2", 0
    chain.state(State.SETUP, devices=DEVICES)
    ledger = chain.ledger
    assert (ledger.uuid, ledger.flag, ledger.broken) == ("u2", Flag.NEVER, None)


def test_an_intent_is_remembered_until_the_next_decision() -> None:
    chain = cloning()
    chain.add(IntentRecord)
    before = chain.ledger
    chain.state(State.COMMITTED, Side.TARGET)
    after = chain.ledger
    assert (before.commit_intended, after.commit_intended) == (True, False)
    assert after.authority is Side.TARGET


def test_an_operation_is_found_again() -> None:
    chain = cloning()
    assert chain.ledger.operation("op1") is not None
    assert chain.ledger.operation("nobody's") is None
