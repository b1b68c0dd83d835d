"""Whether a migration can still come to a state, told from the state table. Pure.

An attempt that is over does not come back by itself: only a new `sync`, which nobody may ever give, would start another
one. So no path leads through `setup` once an attempt has begun.
"""

from collections.abc import Iterator
from dataclasses import replace

from shared.migration.devices import Side
from shared.migration.refusals import Refusal
from shared.migration.states import Flag, State
from shared.migration.table import TRANSITIONS, Facts, decide


def reachable(facts: Facts) -> frozenset[State]:
    """The states that the migration is in or can still come to, by commands and events, within its attempt."""
    seen = {(facts.state, facts.authority)}
    due = [facts]
    while due:
        here = due.pop()
        for after in _steps(here):
            if (after.state, after.authority) not in seen:
                seen.add((after.state, after.authority))
                if after.state is not State.SETUP:
                    due.append(after)
    return frozenset(state for state, _ in seen if state is not None)


def _steps(here: Facts) -> Iterator[Facts]:
    # The flag is set and cleared by the services on the way, so it closes no path: it is taken as set.
    assumed = replace(here, flag=Flag.SET)
    for row in TRANSITIONS:
        if row.before is not here.state or row.after is None:
            continue
        try:
            decide(assumed, row.trigger)
        except Refusal:
            continue
        authority = Side.TARGET if Side.TARGET in {row.authority, here.authority} else Side.SOURCE
        yield replace(here, state=row.after, authority=authority)


def why_out_of_reach(
    facts: Facts, wanted: State, *, attempt: int, attempt_ended: bool = False, unreadable_regions: int = 0
) -> str | None:
    """Why `wanted` cannot come any more, as the end of a sentence; None while it can, or is there.

    `attempt_ended` says that an attempt which was under way, or began, during the waiting is back in `setup`;
    `unreadable_regions` is how many of the source the copier could not read, at least.
    """
    if facts.state is wanted:
        return None
    if facts.state is State.SETUP and facts.target_faults:
        return f"a target fault ended attempt {attempt} (see `cutover faults`); only another `cutover sync` leads there"
    if facts.state is State.SETUP and attempt_ended:
        return f"attempt {attempt} has ended in setup; only another `cutover sync` leads there"
    if facts.state is State.SYNCING and unreadable_regions and wanted is not State.SETUP:
        return (
            "the copy cannot be completed: the source has regions that cannot be read (see `cutover query`)"
        )
    if wanted in reachable(facts):
        return None
    return f"from {_where(facts)} no way leads there"


def _where(facts: Facts) -> str:
    counts = {"source": facts.source_faults, "target": facts.target_faults}
    faulted = [side for side, count in counts.items() if count]
    with_fault = f" with a {' and a '.join(faulted)} fault in this attempt" if faulted else ""
    moved = facts.authority is Side.TARGET and facts.state is not State.COMMITTED
    return f"{facts.state}{with_fault}{', the target alone holding every write,' if moved else ''}"
