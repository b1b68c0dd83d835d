"""What state_control asks of a host: `cutover.host.HOST.COMMAND.MIGRATION`, answered by that host's write_cloning."""

from dataclasses import dataclass

from shared.messages.status import HostView, VerificationView
from shared.migration.devices import Side
from shared.migration.states import State

HOST_COMMANDS = (
    "setup", "enter", "select-target", "select-source", "commit", "abort", "cleanup", "pause", "resume", "throttle", "status",
    "verify", "vouch",
)  # fmt: skip
WAITS_FOR_ADMISSION = "is up, and waits for its admission"  # the words of it, for people
HOST_SERVICE_NAME = "cutover-write-cloning"  # the micro service; its metadata has `host`, `run` and `pid`


def host_subject(host: str, command: str, migration: str) -> str:
    """Where a command for one migration is sent."""
    return f"cutover.host.{host}.{command}.{migration}"


def host_status_subject(host: str) -> str:
    """Where a host tells of all its migrations."""
    return f"cutover.host.{host}.status"


def host_waiting_subject(host: str) -> str:
    """Where a host that is not admitted yet says so. One that is admitted does not answer there."""
    return f"cutover.host.{host}.waiting"


def doubt_of(uuid: str, run: int, decision: int | None = None, broken: int = 0) -> str:
    """What a word about old connections is given for.

    A later doubt is of another migration of the name or another run of the host, or follows a decision, or one more of the
    connections in use is broken. Where a volume is kept closed for want of the word there is no decision.
    """
    opened = f"{uuid.rsplit('-', maxsplit=1)[-1]}.{run}"
    return opened if decision is None else f"{opened}.{decision}.{broken}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSetupRequest:
    """Open and check two devices, and begin a migration of this UUID."""

    uuid: str
    source: str
    target: str
    overwrite_target: bool
    operation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterRequest:
    """Enter write cloning with the flag that the record `flag_digest` set."""

    uuid: str
    attempt: int
    flag_digest: str
    operation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCommand:
    """Every other command. `bytes_per_s` belongs to throttle, `disconnect` to cleanup, `verified` to commit, `doubt` to vouch."""

    uuid: str
    operation_id: str
    bytes_per_s: int | None = None
    disconnect: bool = False
    verified: bool | None = None  # see `CommitRequest`
    doubt: str | None = None  # see `doubt_of`


@dataclass(frozen=True, slots=True, kw_only=True)
class TryAgainRequest:
    """Have one judged anew that is closed.

    Where an operator has given it up, a witness that cannot be believed is forgotten first: of every other one startup tells
    whether its migration is over; of that one nobody could.
    """

    given_up: bool = False
    uuid: str | None = None  # of what was given up, where that is known


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedReply:
    """The host has decided and its witness holds it; `journal` tells whether the journal does, too."""

    state: State | None
    authority: Side
    attempt: int
    decision: int
    journal: bool
    message: str = ""
    export_uri: str | None = None
    verification: VerificationView | None = None  # of verify: it was begun, or was under way
    uuid: str = ""  # the migration's; of one that was set up before it is not the one that was asked for now


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedView:
    """A migration that the host knows of and keeps closed, and why."""

    name: str
    uuid: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReply:
    """A host that is up, has no volume open, and asks for its admission again and again."""

    host: str
    run: int
    why: str  # what its last question met; empty before the first answer


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatusReply:
    """All migrations of one host, or the one that was asked for."""

    host: str
    run: int
    migrations: tuple[HostView, ...] = ()
    closed: tuple[ClosedView, ...] = ()
    opening: tuple[
        str, ...
    ] = ()  # names of those that are being set up or opened: neither open yet, nor closed
    warnings: tuple[str, ...] = ()
