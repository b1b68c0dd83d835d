"""One example of each message, as the codec writes it: what the reference shows is what the wire has."""

from dataclasses import replace

from docs.reference.schemas import message_types
from shared.messages.admission import (
    Admission,
    AdmissionReply,
    AdmissionRequest,
    Closed,
    WitnessView,
)
from shared.messages.control import (
    CleanupRequest,
    CommandReply,
    CommitRequest,
    ErrorBody,
    ErrorReply,
    FaultsReply,
    ListReply,
    PlainRequest,
    SetupRequest,
    ThrottleRequest,
    VouchRequest,
)
from shared.messages.host import (
    ClosedView,
    DecidedReply,
    EnterRequest,
    HostCommand,
    HostSetupRequest,
    HostStatusReply,
    TryAgainRequest,
    WaitingReply,
)
from shared.messages.recording import (
    ClearFlagRequest,
    DecisionRequest,
    FaultReport,
    Origin,
    RecordFaultRequest,
    RepairRequest,
    SetFlagRequest,
    StoredReply,
)
from shared.messages.recovery import (
    AdoptRequest,
    ChoiceView,
    ExamineReply,
    ExamineRequest,
    Finding,
    GiveUpRequest,
    RecoverRequest,
    RecoveryReply,
    SideKnown,
    Telling,
)
from shared.messages.status import ConnectionView, FaultView, HostView, MigrationStatus, RoutingView
from shared.migration.devices import DeviceIdentity, DeviceKind, Side
from shared.migration.records import (
    DevicePair,
    FaultRecord,
    FlagClearRecord,
    FlagSetRecord,
    IntentRecord,
    RepairRecord,
    StateRecord,
    TombstoneRecord,
)
from shared.migration.states import Flag, State

_UUID = "d46a8393-249d-4da3-8c69-736885c7e1cc"
_AT = "2026-11-22T18:04:37.422174Z"
_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_SIZE_BYTES = 2 << 30
_INODE = "inode:65024:{}"
_SOURCE = DeviceIdentity(
    name="/srv/volumes/old.img", kind=DeviceKind.FILE, token=_INODE.format(1311), size_bytes=_SIZE_BYTES
)
_TARGET = replace(_SOURCE, name="/srv/volumes/new.img", token=_INODE.format(1312))
_DEVICES = DevicePair(source=_SOURCE, target=_TARGET)
_EXPORT = "nbd+unix:///vol1?socket=/var/lib/cutover/nbd.sock"
_CLIENT = ConnectionView(peer="fio (pid 9135, uid 0)", connected_at=_AT)
_ROUTING = RoutingView(reads=Side.SOURCE, writes=(Side.SOURCE, Side.TARGET), flushes=(Side.SOURCE,))

# What every record has, spelt out once for the type checker.
_BASE = FlagSetRecord(
    migration="vol1", uuid=_UUID, attempt=1, host="vm", run=3, decision=1, operation_id="console-5f0c:flag",
    recorded_at=_AT, index=2, previous_digest=_DIGEST,
)  # fmt: skip
_FAULT_REPORT = FaultReport(
    operation_id=f"{_UUID}:fault:3:1", side=Side.TARGET, state=State.SYNCING, attempt=1, operation="write",
    cause="EIO", errno=5, offset=1048576, length=4096, detected_at=_AT,
)  # fmt: skip
_FAULT_VIEW = FaultView(
    migration="vol1", attempt=1, side=Side.TARGET, state=State.SYNCING, operation="write", cause="EIO", errno=5,
    offset=1048576, length=4096, host="vm", detected_at=_AT, recorded_at=_AT,
)  # fmt: skip
_ORIGIN = Origin(
    migration="vol1", uuid=_UUID, attempt=1, host="vm", run=3, decision=2, operation_id="console-5f0c",
    relies_on=_DIGEST,
)  # fmt: skip
_WITNESS = WitnessView(
    migration="vol1", uuid=_UUID, host="vm", run=3, state=State.SYNCING, authority=Side.SOURCE, attempt=1, decision=2,
    operation_id="console-5f0c", trigger="sync", detail="", tail_digest=_DIGEST, flag_digest=_DIGEST, opened_run=3,
    faults=(), devices=_DEVICES,
)  # fmt: skip
_VIEW = HostView(
    name="vol1", uuid=_UUID, host="vm", run=3, state=State.SYNCING, authority=Side.SOURCE, attempt=1, decision=2,
    journal_pending=False, size_bytes=_SIZE_BYTES, synced_bytes=1443109011, remaining_bytes=704374637,
    rate_bytes_per_s=464728883.2, eta_s=1.5, paused=False, throttle_bytes_per_s=209715200, export_uri=_EXPORT,
    connections=(_CLIENT,), io_engine="io_uring", routing=_ROUTING, application_reads=5400, application_writes=5400,
    application_read_bytes=22118400, application_write_bytes=22118400, tail_digest=_DIGEST, at=_AT,
)  # fmt: skip
_STATUS = MigrationStatus(
    name="vol1", uuid=_UUID, state=State.SYNCING, attempt=1, error_flag=True, authority=Side.SOURCE, faults=(),
    size_bytes=_SIZE_BYTES, synced_bytes=1443109011, remaining_bytes=704374637, synced_percent=67.2,
    rate_bytes_per_s=464728883.2, eta_s=1.5, paused=False, throttle_bytes_per_s=209715200, host="vm", host_answers=True,
    source=_SOURCE.name, target=_TARGET.name, devices=_DEVICES, export_uri=_EXPORT, connections=(_CLIENT,),
    io_engine="io_uring", routing=_ROUTING, journal_pending=False, allowed=("abort",), as_of=_AT,
)  # fmt: skip
_DECIDED = DecidedReply(
    state=State.SYNCING, authority=Side.SOURCE, attempt=1, decision=2, journal=True, export_uri=_EXPORT
)


def _record(shape: type, *, index: int, **more: object) -> object:
    common = {
        name: getattr(_BASE, name)
        for name in (
            "migration",
            "uuid",
            "attempt",
            "host",
            "run",
            "decision",
            "operation_id",
            "recorded_at",
            "previous_digest",
        )
    }
    return shape(**(common | {"index": index} | more))


_EXAMPLES: tuple[object, ...] = (
    _record(
        StateRecord,
        index=3,
        decision=2,
        operation_id="console-5f0c",
        state=State.SYNCING,
        authority=Side.SOURCE,
        trigger="sync",
    ),
    _record(IntentRecord, index=7, decision=4),
    _record(
        RepairRecord, index=4, decision=2, witness_digest=_DIGEST, state=State.SYNCING, authority=Side.SOURCE,
        target_fault=False, source_fault=False, devices=_DEVICES,
        reason="the journal has gone back: it lacks the record that the witness relied on",
    ),
    _record(TombstoneRecord, index=10, decision=6, state=State.COMMITTED),
    _BASE,
    _record(FlagClearRecord, index=9, decision=5, set_digest=_DIGEST),
    _record(
        FaultRecord, index=4, decision=2, operation_id=_FAULT_REPORT.operation_id, side=Side.TARGET, state=State.SYNCING,
        operation="write", cause="EIO", errno=5, offset=1048576, length=4096, detected_at=_AT,
    ),
    _VIEW,
    SetupRequest(source=_SOURCE.name, target=_TARGET.name),
    PlainRequest(),
    ThrottleRequest(bytes_per_s=209715200),
    CommitRequest(verified=True),
    VouchRequest(doubt="7.12.0"),
    CleanupRequest(disconnect=True),
    CommandReply(
        name="vol1", uuid=_UUID, state=State.SYNCING, authority=Side.SOURCE, attempt=1, decision=2, export_uri=_EXPORT
    ),
    _STATUS,
    ListReply(migrations=(_STATUS,)),
    FaultsReply(faults=(_FAULT_VIEW,)),
    ErrorReply(
        error=ErrorBody(
            code="not-allowed",
            message="commit is refused in state syncing: the state does not allow it; allowed now: abort.",
            allowed=("abort",),
        )
    ),
    RecoverRequest(),
    RecoveryReply(
        name="vol1", uuid=_UUID, host="vm", standing="closed", why="'vol1' stays closed: its host has no witness of it.",
        proved=False, held="both",
        tellings=(
            Telling(
                by="journal", state=State.SOURCE_SELECTED, authority=Side.SOURCE, attempt=1, decision=3, flag=Flag.CLEAR,
                last_at=_AT,
            ),
        ),
        sides=(SideKnown(side=Side.SOURCE, device=_SOURCE.name, finding=Finding(usable=True), holds="everything"),),
        choices=(
            ChoiceView(
                choice="try-again", consent="safe", reason="the records are judged anew, as at a start of the host",
                command="cutover recover vol1 --try-again",
            ),
        ),
    ),
    AdoptRequest(authority=Side.SOURCE, accept=True),
    GiveUpRequest(accept=True),
    SetFlagRequest(origin=_ORIGIN, tail_digest=_DIGEST),
    ClearFlagRequest(origin=_ORIGIN, set_digest=_DIGEST, tail_digest=_DIGEST),
    RecordFaultRequest(origin=_ORIGIN, fault=_FAULT_REPORT),
    DecisionRequest(origin=_ORIGIN, state=State.SYNCING, authority=Side.SOURCE, trigger="sync"),
    RepairRequest(
        origin=_ORIGIN, witness_digest=_DIGEST, state=State.SYNCING, authority=Side.SOURCE, target_fault=False,
        source_fault=False, reason="the journal has gone back", devices=_DEVICES,
    ),
    StoredReply(sequence=12, index=3, digest=_DIGEST),
    AdmissionRequest(host="vm", run=3, life="0f1e2d3c4b5a6978", witnesses=(_WITNESS,)),
    AdmissionReply(
        admitted=(
            Admission(
                migration="vol1", uuid=_UUID, label="resume", state=State.SYNCING, authority=Side.SOURCE, attempt=1,
                decision=2, tail_digest=_DIGEST, flag_digest=_DIGEST, source_faults=0, target_faults=0, devices=_DEVICES,
                reason="the stop was clean and no target fault is known: cloning goes on",
            ),
        ),
        closed=(Closed(migration="vol2", uuid=None, code="not-admitted", message="'vol2' stays closed."),),
    ),
    HostSetupRequest(
        uuid=_UUID, source=_SOURCE.name, target=_TARGET.name, overwrite_target=False, operation_id="console-5f0c"
    ),
    EnterRequest(uuid=_UUID, attempt=1, flag_digest=_DIGEST, operation_id="console-5f0c"),
    HostCommand(uuid=_UUID, operation_id="console-5f0c"),
    TryAgainRequest(given_up=True, uuid=_UUID),
    _DECIDED,
    HostStatusReply(
        host="vm", run=3, migrations=(_VIEW,),
        closed=(ClosedView(name="vol2", uuid=None, code="not-admitted", message="'vol2' stays closed."),),
    ),
    WaitingReply(host="vm", run=4, why="Not everything could be judged yet: Nobody answers on cutover.decision.vol1."),
    ExamineRequest(devices=_DEVICES),
    ExamineReply(witness=_WITNESS, source=Finding(usable=True), target=Finding(usable=True)),
)  # fmt: skip


def examples() -> dict[type, object]:
    """By type.

    Raises:
        LookupError: a type has none.
    """
    by_type: dict[type, object] = {type(each): each for each in _EXAMPLES}
    missing = [shape.__name__ for shape in message_types() if shape not in by_type]
    if missing:
        raise LookupError(f"docs/reference/examples.py has no example of {', '.join(missing)}")
    return by_type
