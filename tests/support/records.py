"""Records of one migration, with only what a test is about spelt out."""

from dataclasses import replace

from shared.migration.devices import DeviceIdentity, DeviceKind, Side
from shared.migration.ledger import Ledger
from shared.migration.records import (
    ADOPTED,
    DevicePair,
    FaultRecord,
    FlagClearRecord,
    FlagSetRecord,
    IntentRecord,
    RepairRecord,
    StateRecord,
    TombstoneRecord,
)
from shared.migration.states import State

NAME = "vol1"
UUID = "6f1e7a52-0000-4000-8000-000000000001"
HOST = "h1"
AT = "2026-01-31T12:00:00.000000Z"

SOURCE = DeviceIdentity(name="/dev/a", kind=DeviceKind.FILE, token="inode:1:1", size_bytes=1 << 20)
TARGET = replace(SOURCE, name="/dev/b", token="inode:1:2")
DEVICES = DevicePair(source=SOURCE, target=TARGET)

_COMMON = {
    "migration": NAME,
    "uuid": UUID,
    "attempt": 1,
    "host": HOST,
    "run": 1,
    "decision": 1,
    "recorded_at": AT,
}


def state_record(operation_id: str = "s", state: State = State.SETUP, **changes: object) -> StateRecord:
    fields = {"state": state, "authority": Side.SOURCE, "trigger": "setup", "devices": DEVICES}
    return StateRecord(operation_id=operation_id, **{**_COMMON, **fields, **changes})  # type: ignore[arg-type]


def flag_set(operation_id: str = "f", **changes: object) -> FlagSetRecord:
    return FlagSetRecord(operation_id=operation_id, **{**_COMMON, **changes})  # type: ignore[arg-type]


def flag_clear(operation_id: str = "c", set_digest: str = "d", **changes: object) -> FlagClearRecord:
    return FlagClearRecord(operation_id=operation_id, set_digest=set_digest, **{**_COMMON, **changes})  # type: ignore[arg-type]


def fault_record(operation_id: str = "x", side: Side = Side.TARGET, **changes: object) -> FaultRecord:
    fields = {"state": State.SYNCING, "operation": "write", "cause": "EIO", "errno": 5, "detected_at": AT}
    return FaultRecord(operation_id=operation_id, side=side, **{**_COMMON, **fields, **changes})  # type: ignore[arg-type]


def tombstone(operation_id: str = "t", **changes: object) -> TombstoneRecord:
    return TombstoneRecord(operation_id=operation_id, **{**_COMMON, "state": State.SETUP, **changes})  # type: ignore[arg-type]


def adopted_by(host: str, ledger: Ledger) -> StateRecord:
    """The operator's word that another host has the migration now, and that the source holds what counts."""
    return state_record(
        "adoption",
        State.SETUP,
        uuid=str(ledger.uuid),
        attempt=ledger.attempt,
        host=host,
        decision=ledger.decision + 1,
        trigger=ADOPTED,
        devices=ledger.devices,
    )


ONE_OF_EACH = (
    state_record(),
    IntentRecord(operation_id="i", **_COMMON),  # type: ignore[arg-type]
    RepairRecord(
        operation_id="r",
        witness_digest="w",
        state=State.SYNCING,
        authority=Side.SOURCE,
        target_fault=True,
        source_fault=False,
        reason="gone back",
        devices=DEVICES,
        **_COMMON,  # type: ignore[arg-type]
    ),
    TombstoneRecord(operation_id="t", state=State.COMMITTED, **_COMMON),  # type: ignore[arg-type]
    flag_set(),
    flag_clear(),
    fault_record(),
)
