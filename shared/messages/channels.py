"""Every subject that Cutover's messages travel on: who sends there, what it carries, what is answered. Pure data.

The reference in docs/events is made from this table, and tests hold it against the services' endpoints and against the wire.
`{migration}` and `{host}` stand for names, each one token of a subject.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.messages.admission import AdmissionReply, AdmissionRequest
from shared.messages.control import (
    CleanupRequest,
    CommandReply,
    CommitRequest,
    FaultsReply,
    ListReply,
    PlainRequest,
    SetupRequest,
    ThrottleRequest,
    VouchRequest,
)
from shared.messages.host import (
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
    RecordFaultRequest,
    RepairRequest,
    SetFlagRequest,
    StoredReply,
)
from shared.messages.recovery import (
    AdoptRequest,
    ExamineReply,
    ExamineRequest,
    GiveUpRequest,
    RecoverRequest,
    RecoveryReply,
)
from shared.messages.status import HostView, MigrationStatus
from shared.migration.records import (
    FaultRecord,
    FlagClearRecord,
    FlagSetRecord,
    IntentRecord,
    RepairRecord,
    StateRecord,
    TombstoneRecord,
)


class Kind(StrEnum):
    """What a channel is for whom."""

    EVENT = "event"  # told to whoever listens
    COMMAND = "command"  # asked by operators and their programs
    INTERNAL = "internal"  # between the services; open to see, and to change without notice


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One subject. A channel with a reply is a request; `service` sends events, and answers requests."""

    name: str
    kind: Kind
    address: str
    service: str
    carries: tuple[type, ...]
    summary: str
    reply: type | None = None

    def match(self, subject: str) -> Mapping[str, str] | None:
        """The names in a subject, by what they stand for; None for a subject of another channel."""
        wanted, tokens = self.address.split("."), subject.split(".")
        if len(wanted) != len(tokens):
            return None
        names = {}
        for part, token in zip(wanted, tokens, strict=True):
            if part.startswith("{"):
                names[part[1:-1]] = token
            elif part != token:
                return None
        return names

    @property
    def topic(self) -> str:
        """The address without the names and `cutover`: what a message is about, in a CloudEvents type."""
        return ".".join(part for part in self.address.split(".")[1:] if not part.startswith("{"))


_RECORDING, _CONTROL, _STARTUP, _CLONING = "fault_recording", "state_control", "startup", "write_cloning"


def _event(name: str, address: str, service: str, carries: tuple[type, ...], summary: str) -> Channel:
    return Channel(
        name=name, kind=Kind.EVENT, address=address, service=service, carries=carries, summary=summary
    )


def _command(command: str, request: type, reply: type, summary: str) -> Channel:
    return Channel(
        name=f"control-{command}",
        kind=Kind.COMMAND,
        address=f"cutover.control.{command}.{{migration}}",
        service=_CONTROL,
        carries=(request,),
        reply=reply,
        summary=summary,
    )


def _internal(name: str, address: str, service: str, request: type, reply: type, summary: str) -> Channel:
    return Channel(
        name=name, kind=Kind.INTERNAL, address=address, service=service, carries=(request,), reply=reply,
        summary=summary,
    )  # fmt: skip


def _host(command: str, request: type, reply: type, summary: str) -> Channel:
    address = f"cutover.host.{{host}}.{command}.{{migration}}"
    return _internal(f"host-{command}", address, _CLONING, request, reply, summary)


_EVENTS = (
    _event(
        "progress", "cutover.progress.{migration}", _CLONING, (HostView,),
        "How far a migration is, as its host sees it; once a second while something changes. The last one is kept.",
    ),
    _event(
        "journal-state", "cutover.journal.{migration}.state", _CONTROL,
        (StateRecord, IntentRecord, RepairRecord, TombstoneRecord),
        "Every transition; the last one is the recorded state. Kept for good.",
    ),
    _event(
        "journal-flag", "cutover.journal.{migration}.flag", _RECORDING, (FlagSetRecord, FlagClearRecord),
        "Every set and clear of the error flag; the last one is the flag. Kept for good.",
    ),
    _event(
        "journal-fault-source", "cutover.journal.{migration}.fault.source", _RECORDING, (FaultRecord,),
        "The fault log of the source. Kept for good.",
    ),
    _event(
        "journal-fault-target", "cutover.journal.{migration}.fault.target", _RECORDING, (FaultRecord,),
        "The fault log of the target. Kept for good.",
    ),
)  # fmt: skip
_COMMANDS = (
    _command("setup", SetupRequest, CommandReply, "Pair two devices under a name, and export the volume."),
    _command("sync", PlainRequest, CommandReply, "Set the error flag, then clone every write and copy the rest."),
    _command("pause", PlainRequest, CommandReply, "Hold the copier, or a comparison."),
    _command("resume", PlainRequest, CommandReply, "Let the copier, or a comparison, go on."),
    _command("throttle", ThrottleRequest, CommandReply, "Limit the copier; without a rate, lift the limit."),
    _command("select-target", PlainRequest, CommandReply, "Read from the target."),
    _command("select-source", PlainRequest, CommandReply, "Read from the source again."),
    _command("verify", PlainRequest, CommandReply, "Begin to compare both sides; answered when that has begun."),
    _command("commit", CommitRequest, CommandReply, "Make the target the authority, and let the source go. Cannot be undone."),
    _command("abort", PlainRequest, CommandReply, "Go back to the source alone."),
    _command("cleanup", CleanupRequest, CommandReply, "Close the volume and forget the migration."),
    _command("vouch", VouchRequest, CommandReply, "Say that the old connections to remote devices are gone."),
    _command("query", PlainRequest, MigrationStatus, "Everything about one migration."),
    _command("recover", RecoverRequest, RecoveryReply, "What is known of a closed volume, and what may be done."),
    _command("try-again", PlainRequest, CommandReply, "Have a closed volume judged anew."),
    _command("adopt", AdoptRequest, CommandReply, "Open a closed volume by the operator's word."),
    _command("give-up", GiveUpRequest, CommandReply, "Forget a closed migration; its devices keep what they hold."),
    _command("faults", PlainRequest, FaultsReply, "The fault log of one migration, oldest first."),
    Channel(
        name="control-list", kind=Kind.COMMAND, address="cutover.control.list", service=_CONTROL,
        carries=(PlainRequest,), reply=ListReply, summary="Every migration, as `query` tells of it.",
    ),
    Channel(
        name="control-all-faults", kind=Kind.COMMAND, address="cutover.control.faults", service=_CONTROL,
        carries=(PlainRequest,), reply=FaultsReply, summary="The fault log of all migrations.",
    ),
)  # fmt: skip
_INTERNALS = (
    _internal(
        "record-flag-set", "cutover.record.flag-set.{host}.{migration}", _RECORDING, SetFlagRequest, StoredReply,
        "Set the error flag.",
    ),
    _internal(
        "record-flag-clear", "cutover.record.flag-clear.{host}.{migration}", _RECORDING, ClearFlagRequest, StoredReply,
        "Clear the error flag, after the faults that are named.",
    ),
    _internal(
        "record-fault", "cutover.record.fault.{host}.{migration}", _RECORDING, RecordFaultRequest, StoredReply,
        "Append one fault to the log.",
    ),
    _internal(
        "decision", "cutover.decision.{host}.{migration}", _CONTROL, DecisionRequest, StoredReply,
        "Record a decision that is durable in the host's witness.",
    ),
    _internal(
        "decision-repair", "cutover.decision.repair.{host}.{migration}", _CONTROL, RepairRequest, StoredReply,
        "Let a damaged chain go on.",
    ),
    _internal(
        "startup-admit", "cutover.startup.admit.{host}", _STARTUP, AdmissionRequest, AdmissionReply,
        "Replay the journal for one run of a host, before it opens a volume.",
    ),
    _internal(
        "host-status-all", "cutover.host.{host}.status", _CLONING, PlainRequest, HostStatusReply,
        "All migrations of a host.",
    ),
    _internal(
        "host-waiting", "cutover.host.{host}.waiting", _CLONING, PlainRequest, WaitingReply,
        "What a host that is not admitted yet waits for; one that is admitted does not answer.",
    ),
    _host("setup", HostSetupRequest, DecidedReply, "Open and check two devices, and begin a migration."),
    _host("enter", EnterRequest, DecidedReply, "Enter write cloning under the flag that was set for it."),
    _host("select-target", HostCommand, DecidedReply, "Read from the target."),
    _host("select-source", HostCommand, DecidedReply, "Read from the source again."),
    _host("commit", HostCommand, DecidedReply, "Move the authority to the target."),
    _host("abort", HostCommand, DecidedReply, "Go back to the source alone."),
    _host("cleanup", HostCommand, DecidedReply, "Close the volume and forget the migration."),
    _host("pause", HostCommand, DecidedReply, "Hold the copier, or a comparison."),
    _host("resume", HostCommand, DecidedReply, "Let the copier, or a comparison, go on."),
    _host("throttle", HostCommand, DecidedReply, "Limit the copier."),
    _host("verify", HostCommand, DecidedReply, "Begin to compare both sides."),
    _host("vouch", HostCommand, DecidedReply, "Take the operator's word for old connections."),
    _host("status", PlainRequest, HostStatusReply, "One migration of a host."),
    _host("try-again", TryAgainRequest, HostStatusReply, "Ask for the admission of one that is closed."),
    _host("examine", ExamineRequest, ExamineReply, "Look at the witness and the devices of one that is closed."),
)  # fmt: skip

CHANNELS: tuple[Channel, ...] = (*_EVENTS, *_COMMANDS, *_INTERNALS)


def channel_of(subject: str) -> tuple[Channel, Mapping[str, str]] | None:
    """The channel that a subject belongs to, and the names in it; None when there is none."""
    for channel in CHANNELS:
        names = channel.match(subject)
        if names is not None:
            return channel, names
    return None
