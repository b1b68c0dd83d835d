"""What startup decides for one migration before any I/O: one exhaustive table over everything that the journal can say.

The table is read from top to bottom; the first row that fits is the verdict. The last row fits everything, so no
combination is left without an answer, and what nobody thought of stays closed.
"""

from dataclasses import dataclass
from enum import StrEnum

from shared.migration.devices import Side
from shared.migration.states import CLONING_STATES, State


class Remedy(StrEnum):
    """What startup has done, in order, before it admits."""

    RECORD_UNCLEAN = "record-unclean"  # a target fault with the cause `unclean-shutdown`
    ERROR_TRANSITION = "error-transition"
    SET_FLAG = "set-flag"
    CLEAR_FLAG = "clear-flag"


class Label(StrEnum):
    """The name of a row, for messages, tests and counters."""

    IDLE = "idle"
    IDLE_FLAGGED = "idle-flagged"
    DONE = "done"
    DONE_FLAGGED = "done-flagged"
    RESUME = "resume"
    FAULTED = "faulted"
    UNCLEAN = "unclean"
    ON_TARGET = "on-target"
    ON_TARGET_FLAGGED = "on-target-flagged"
    CONTRADICTION = "contradiction"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictFacts:
    """What the replayed journal and the witness agree on."""

    state: State
    authority: Side
    flag_set: bool
    target_fault: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One row. A field that is None fits anything; `remedies` are carried out in order before the volume opens."""

    label: Label
    states: frozenset[State] | None
    authority: Side | None
    flag_set: bool | None
    target_fault: bool | None
    admit: bool = True
    remedies: tuple[Remedy, ...] = ()
    reason: str

    def fits(self, facts: VerdictFacts) -> bool:
        """Whether this row covers the facts."""
        return (
            (self.states is None or facts.state in self.states)
            and self.authority in {None, facts.authority}
            and self.flag_set in {None, facts.flag_set}
            and self.target_fault in {None, facts.target_fault}
        )


_SETUP = frozenset({State.SETUP})
_COMMITTED = frozenset({State.COMMITTED})
_TARGET_SELECTED = frozenset({State.TARGET_SELECTED})

VERDICTS: tuple[Verdict, ...] = (
    Verdict(
        label=Label.IDLE,
        states=_SETUP,
        authority=Side.SOURCE,
        flag_set=False,
        target_fault=None,
        reason="writes go to the source alone",
    ),
    Verdict(
        label=Label.IDLE_FLAGGED,
        states=_SETUP,
        authority=Side.SOURCE,
        flag_set=True,
        target_fault=None,
        remedies=(Remedy.CLEAR_FLAG,),
        reason="no cloned write is at stake",
    ),
    Verdict(
        label=Label.DONE,
        states=_COMMITTED,
        authority=Side.TARGET,
        flag_set=False,
        target_fault=None,
        reason="the target has taken over",
    ),
    Verdict(
        label=Label.DONE_FLAGGED,
        states=_COMMITTED,
        authority=Side.TARGET,
        flag_set=True,
        target_fault=None,
        remedies=(Remedy.CLEAR_FLAG,),
        reason="the target has taken over; only the flag was left to clear",
    ),
    Verdict(
        label=Label.RESUME,
        states=CLONING_STATES,
        authority=Side.SOURCE,
        flag_set=False,
        target_fault=False,
        remedies=(Remedy.SET_FLAG,),
        reason="the stop was clean and no target fault is known: cloning goes on",
    ),
    Verdict(
        label=Label.FAULTED,
        states=CLONING_STATES,
        authority=Side.SOURCE,
        flag_set=False,
        target_fault=True,
        remedies=(Remedy.ERROR_TRANSITION,),
        reason="the stop was clean, but the target had failed",
    ),
    Verdict(
        label=Label.UNCLEAN,
        states=CLONING_STATES,
        authority=Side.SOURCE,
        flag_set=True,
        target_fault=None,
        remedies=(Remedy.RECORD_UNCLEAN, Remedy.ERROR_TRANSITION, Remedy.CLEAR_FLAG),
        reason="the stop was not clean: the target may miss writes that the source has",
    ),
    Verdict(
        label=Label.ON_TARGET,
        states=_TARGET_SELECTED,
        authority=Side.TARGET,
        flag_set=False,
        target_fault=None,
        remedies=(Remedy.SET_FLAG,),
        reason="the source was lost: the target alone holds every acknowledged write",
    ),
    Verdict(
        label=Label.ON_TARGET_FLAGGED,
        states=_TARGET_SELECTED,
        authority=Side.TARGET,
        flag_set=True,
        target_fault=None,
        reason="the source was lost: the target alone holds every acknowledged write",
    ),
    Verdict(
        label=Label.CONTRADICTION,
        states=None,
        authority=None,
        flag_set=None,
        target_fault=None,
        admit=False,
        reason="state and authority contradict each other",
    ),
)


def judge(facts: VerdictFacts) -> Verdict:
    """The first row that fits; there always is one."""
    return next(verdict for verdict in VERDICTS if verdict.fits(facts))
