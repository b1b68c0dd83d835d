"""Statuses as state_control would answer them, with only what a test is about spelt out."""

from dataclasses import replace
from typing import Any

from shared.messages.status import FaultView, MigrationStatus, Outcome, VerificationView
from shared.migration.devices import DeviceIdentity, DeviceKind, Side
from shared.migration.records import DevicePair
from shared.migration.states import State
from shared.migration.table import Facts, allowed_commands, with_faults

SIZE_BYTES = 512 << 20


def device(name: str) -> DeviceIdentity:
    return DeviceIdentity(
        name=name, kind=DeviceKind.FILE, token=f"inode:1:{len(name)}", size_bytes=SIZE_BYTES
    )


def fault(
    side: Side = Side.TARGET, *, attempt: int = 1, migration: str = "vol1", operation: str = "write"
) -> FaultView:
    return FaultView(
        migration=migration,
        attempt=attempt,
        side=side,
        state=State.SYNCING,
        operation=operation,
        cause="EIO",
        errno=5,
        offset=4096,
        length=4096,
        host="local",
        detected_at="2026-01-31T12:00:00.000000Z",
        recorded_at="2026-01-31T12:00:01.000000Z",
    )


def comparison(outcome: Outcome | None = None, **fields: Any) -> VerificationView:
    """A comparison that is a quarter through, or has ended."""
    at = "2026-01-31T12:00:00.000000Z"
    under_way = VerificationView(
        id="console-1",
        outcome=outcome,
        compared_bytes=SIZE_BYTES // 4,
        remaining_bytes=SIZE_BYTES // 4 * 3,
        rate_bytes_per_s=float(48 << 20),
        eta_s=8.0,
        began_at=at,
        ended_at=at if outcome else None,
    )
    return replace(under_way, **fields)


_USUAL = MigrationStatus(
    name="vol1",
    uuid="6f1e7a52-0000-4000-8000-000000000001",
    state=State.SETUP,
    attempt=0,
    error_flag=False,
    authority=Side.SOURCE,
    faults=(),
    size_bytes=SIZE_BYTES,
    synced_bytes=0,
    remaining_bytes=SIZE_BYTES,
    synced_percent=0.0,
    rate_bytes_per_s=0.0,
    eta_s=None,
    paused=False,
    throttle_bytes_per_s=None,
    host="local",
    host_answers=True,
    source="/data/source.img",
    target="/data/target.img",
    devices=DevicePair(source=device("/data/source.img"), target=device("/data/target.img")),
    export_uri="nbd+unix:///vol1?socket=/run/nbd.sock",
    connections=(),
    io_engine="io_uring",
    routing=None,
    journal_pending=False,
    allowed=("sync", "cleanup"),
    as_of="2026-01-31T12:00:00.000000Z",
)


def status(**fields: Any) -> MigrationStatus:
    """A status with these fields; what is allowed follows from the state unless given."""
    changed = replace(_USUAL, **fields)
    if "allowed" in fields:
        return changed
    faults = [each for each in changed.faults if each.attempt == changed.attempt]
    facts = with_faults(Facts(state=changed.state, authority=changed.authority), faults)
    return replace(changed, allowed=tuple(trigger.value for trigger in allowed_commands(facts)))
