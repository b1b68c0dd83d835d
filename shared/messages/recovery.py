"""Recovery of a volume that stays closed: what is known of it, what may be done, and what a host finds when it looks."""

from dataclasses import dataclass

from shared.messages.admission import GivenAway, WitnessView
from shared.migration.devices import Side
from shared.migration.records import DevicePair
from shared.migration.states import Flag, State


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamineRequest:
    """Asked of a host: look at the witness, and at these devices."""

    devices: DevicePair | None = None  # None: those of the witness


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One device as the host finds it: usable, or why it is not."""

    usable: bool
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamineReply:
    """What the host has of a migration that it does not have open."""

    witness: WitnessView | None = None
    unreadable: str = ""  # why the witness that is there cannot be believed
    source: Finding | None = None
    target: Finding | None = None
    given_away: tuple[GivenAway, ...] = ()  # what it has in mind of migrations of that name


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverRequest:
    """What is known, and what may be done. `host` looks at the devices instead of the one that the journal names."""

    host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptRequest:
    """The operator's word: this side holds what counts. `accept` says that what may be lost was understood."""

    authority: Side
    host: str | None = None  # that shall have it; the one that the journal names unless given
    accept: bool = False
    operation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUpRequest:
    """Forget a migration that is closed; its devices keep what they hold."""

    accept: bool = False
    operation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """What the journal, or the witness, says."""

    by: str  # `journal` or `witness`
    state: State | None = None
    authority: Side | None = None
    attempt: int | None = None
    decision: int | None = None
    flag: Flag | None = None
    source_faults: int = 0
    target_faults: int = 0
    last_at: str | None = None  # of the last record
    doubt: str = ""  # why it does not count for everything


@dataclass(frozen=True, slots=True, kw_only=True)
class SideKnown:
    """One side: what it is, how the host finds it, and what it holds by all that is known."""

    side: Side
    device: str
    finding: Finding | None  # None: nobody could look
    holds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceView:
    """One thing that may be done: `safe`, `asks` or `refused`, why, and the command line for it."""

    choice: str
    consent: str
    reason: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReply:
    """Everything that is known of one migration, and what may be done about it."""

    name: str
    uuid: str | None
    host: str  # that was asked
    recorded_host: str = ""  # that the journal names; empty where it does not know the migration
    standing: str
    why: str  # it is closed; empty when it is not
    proved: bool
    held: str
    tellings: tuple[Telling, ...]
    sides: tuple[SideKnown, ...]
    choices: tuple[ChoiceView, ...]
    warnings: tuple[str, ...] = ()  # of the host that has it open: what somebody should look at all the same
