"""The operator's commands: subjects, requests, and what comes back. All of them work by hand with an empty payload, but `setup`.

`cutover.control.COMMAND.MIGRATION`, answered by state_control. A success reply to a command that moves a migration means:
decided, in the host's witness, and in the journal; `journal` is false when only the last is missing.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from shared.messages.status import FaultView, MigrationStatus, UnlistedMigration, VerificationView
from shared.migration.devices import Side
from shared.migration.states import State

CONTROL_COMMANDS = (
    "setup", "sync", "pause", "resume", "throttle", "select-target", "select-source", "commit", "abort", "cleanup", "query",
    "verify", "vouch",
)  # fmt: skip
BYTES_PER_S_MAX = 1 << 50  # of a throttle
LIST_SUBJECT = "cutover.control.list"
FAULTS_SUBJECT = "cutover.control.faults"  # of all migrations; `cutover.control.faults.MIGRATION` of one


def control_subject(command: str, migration: str) -> str:
    """Where a command for one migration is sent."""
    return f"cutover.control.{command}.{migration}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainRequest:
    """The request of a command that takes nothing. The operation id makes a repetition harmless; one is made up when absent."""

    operation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupRequest:
    """Pair two devices. Without `host`, the only host that is up is taken."""

    source: str
    target: str
    host: str | None = None
    overwrite_target: bool = False
    operation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleRequest:
    """Limit the copier; None lifts the limit."""

    bytes_per_s: Annotated[int, Ge(1), Le(BYTES_PER_S_MAX)] | None = None
    operation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """Move to the target for good.

    With `verified` true only if a `verify` of this attempt was completed, with false whether or not; without it, a partial
    resync alone wants one.
    """

    verified: bool | None = None
    operation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VouchRequest:
    """Say that the old connections to remote devices are gone.

    `doubt` is what `query` says of it: a word that comes late is not believed for connections that were opened after it.
    Without it, it is given for what is in doubt when it comes; an empty one is given for nothing that anybody has seen.
    """

    doubt: str | None = None
    operation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupRequest:
    """Forget a migration; with `disconnect`, clients that are still connected are disconnected first."""

    disconnect: bool = False
    operation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandReply:
    """What a command did. `state` is None after a cleanup."""

    name: str
    uuid: str
    state: State | None
    authority: Side
    attempt: int
    decision: int
    witness: bool = True
    journal: bool = True
    message: str = ""
    export_uri: str | None = None
    verification: VerificationView | None = None  # of verify, which is answered when the comparison has begun


@dataclass(frozen=True, slots=True, kw_only=True)
class ListReply:
    """Every migration that exists, by name. Warnings tell of those that are unlisted, too."""

    migrations: tuple[MigrationStatus, ...] = ()
    warnings: tuple[str, ...] = ()
    # Those that a host has and the journal lacks or contradicts, and those whose records cannot be read.
    unlisted: tuple[UnlistedMigration, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultsReply:
    """The fault log of every migration that exists, oldest first; earlier attempts included."""

    faults: tuple[FaultView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """Why a request was refused: a stable code, a sentence, and the commands that are allowed now."""

    code: str
    message: str
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """The payload of every error reply."""

    error: ErrorBody
