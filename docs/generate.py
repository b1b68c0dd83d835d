"""Writes the parts of the documents that are the code's own tables, and the events' reference. `make docs` runs it."""

import sys
from collections.abc import Callable
from pathlib import Path

from docs.parts import filled
from docs.reference import files
from shared.migration.devices import Side
from shared.migration.states import State, routing_of
from shared.migration.table import TRANSITIONS, Transition
from shared.migration.verdicts import VERDICTS, Verdict

DOCUMENT = Path(__file__).parent / "ARCHITECTURE.md"


def diagram() -> str:
    """The states and what moves a migration between them, as a Mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f'    state "{state}" as {_identifier(state)}' for state in State]
    lines += [f"    {_end(row.before)} --> {_end(row.after)}: {row.trigger}" for row in TRANSITIONS]
    return "\n".join([*lines, "```"])


def transitions() -> str:
    """Every transition: its guards and its steps, in order."""
    rows = ["| from | on | to | only when | steps, in order |", "|---|---|---|---|---|"]
    return "\n".join([*rows, *(_transition(row) for row in TRANSITIONS)])


def routings() -> str:
    """Where I/O goes in each state."""
    rows = ["| state | reads from | writes go to | flushes go to |", "|---|---|---|---|"]
    for state in State:
        routing = routing_of(state, Side.TARGET if state is State.COMMITTED else Side.SOURCE)
        writes, flushes = (" and ".join(sorted(sides)) for sides in (routing.writes, routing.flushes))
        rows.append(f"| `{state}` | {routing.reads} | {writes} | {flushes} |")
    return "\n".join(rows)


def verdicts() -> str:
    """What startup decides; the first row that fits counts."""
    rows = [
        "| label | state | authority | flag | target fault | before it is admitted | because |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*rows, *(_verdict(verdict) for verdict in VERDICTS)])


PARTS: dict[str, Callable[[], str]] = {
    "diagram": diagram,
    "transitions": transitions,
    "routings": routings,
    "verdicts": verdicts,
}


def generated(text: str) -> str:
    """The document with every generated part as the code has it now.

    Raises:
        ValueError: the markers of a part are missing.
    """
    return filled(text, PARTS, str(DOCUMENT))


def _identifier(state: State) -> str:
    return state.replace("-", "_")


def _end(state: State | None) -> str:
    return _identifier(state) if state else "[*]"


def _named(state: State | None, otherwise: str) -> str:
    return f"`{state}`" if state else otherwise


def _transition(row: Transition) -> str:
    guards = ", ".join(guard.replace("-", " ") for guard in row.guards) or "—"
    steps = " → ".join(step.replace("-", " ") for step in row.steps)
    before, after = _named(row.before, "(none)"), _named(row.after, "(removed)")
    return f"| {before} | `{row.trigger}` | {after} | {guards} | {steps} |"


def _verdict(verdict: Verdict) -> str:
    states = (
        ", ".join(f"`{state}`" for state in State if state in verdict.states)
        if verdict.states
        else "any other"
    )
    flag = {True: "set", False: "clear", None: "any"}[verdict.flag_set]
    fault = {True: "yes", False: "no", None: "any"}[verdict.target_fault]
    remedies = ", ".join(remedy.replace("-", " ") for remedy in verdict.remedies) or "—"
    outcome = remedies if verdict.admit else "**refused**"
    return f"| {verdict.label} | {states} | {verdict.authority or 'any'} | {flag} | {fault} | {outcome} | {verdict.reason} |"


def main() -> int:
    """Bring the documents up to date."""
    DOCUMENT.write_text(generated(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    broken = files.write()
    sys.stderr.writelines(f"{each}\n" for each in broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
