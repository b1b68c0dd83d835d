"""The states of a migration and the routing that each of them means."""

from dataclasses import dataclass
from enum import StrEnum

from shared.migration.devices import Side


class State(StrEnum):
    """Where a migration is. The order is the order of its life."""

    SETUP = "setup"
    SYNCING = "syncing"
    SOURCE_SELECTED = "source-selected"
    TARGET_SELECTED = "target-selected"
    COMMITTED = "committed"


IN_SYNC_STATES = frozenset({State.SOURCE_SELECTED, State.TARGET_SELECTED})
CLONING_STATES = IN_SYNC_STATES | {State.SYNCING}


class Flag(StrEnum):
    """The error flag as the journal tells it. `NEVER` means that no flag record exists, which proves nothing."""

    NEVER = "never"
    CLEAR = "clear"
    SET = "set"


@dataclass(frozen=True, slots=True)
class Routing:
    """Where application I/O goes: the side that reads come from, and the sides that writes and flushes must reach."""

    reads: Side
    writes: frozenset[Side]
    flushes: frozenset[Side]


_SOURCE = frozenset({Side.SOURCE})
_TARGET = frozenset({Side.TARGET})
_BOTH = frozenset(Side)

# While reads come from the source a flush need only reach the source: it is the authority, and an unclean stop discards the
# other side. Cloning then costs one flush, not two.
_ROUTINGS = {
    State.SETUP: Routing(Side.SOURCE, _SOURCE, _SOURCE),
    State.SYNCING: Routing(Side.SOURCE, _BOTH, _SOURCE),
    State.SOURCE_SELECTED: Routing(Side.SOURCE, _BOTH, _SOURCE),
    State.TARGET_SELECTED: Routing(Side.TARGET, _BOTH, _BOTH),
    State.COMMITTED: Routing(Side.TARGET, _TARGET, _TARGET),
}
_ON_TARGET_ALONE = Routing(Side.TARGET, _TARGET, _TARGET)


def routing_of(state: State, authority: Side) -> Routing:
    """The routing of a state. Once the authority has moved to the target, the source has been dropped."""
    return _ON_TARGET_ALONE if authority is Side.TARGET else _ROUTINGS[state]
