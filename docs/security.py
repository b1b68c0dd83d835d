"""Writes the table of roles in SECURITY.md from the data that the NATS server's file is made of. `make docs` runs it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from docs.parts import filled
from shared.bus.permissions import HOST_PLACEHOLDER, Role, permissions, roles

DOCUMENT = Path(__file__).parent / "SECURITY.md"


def roles_table() -> str:
    """Every role: what it may publish and subscribe to. What is not there is denied."""
    everyone = roles([HOST_PLACEHOLDER])
    rows = [
        "| role | for | publishes, and is answered | answers | hears | publishes answers to |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*rows, *(_row(role, everyone) for role in everyone)])


def generated(text: str) -> str:
    """The document with the table as the code has it now.

    Raises:
        ValueError: the markers are missing.
    """
    return filled(text, {"roles": roles_table}, str(DOCUMENT))


def _row(role: Role, everyone: Sequence[Role]) -> str:
    asked = {*role.tells, *role.asks}
    inboxes = [each for each in permissions(role, everyone).publish if each not in asked]
    hears = (*role.hears, f"{role.inbox_prefix}.>")
    cells = (_listed((*role.tells, *role.asks)), _listed(role.answers), _listed(hears), _listed(inboxes))
    return f"| `{role.name}` | {role.purpose} | {' | '.join(cells)} |"


def _listed(subjects: Sequence[str]) -> str:
    return "<br>".join(f"`{each}`" for each in subjects) or "—"


def main() -> int:
    """Bring the document up to date."""
    DOCUMENT.write_text(generated(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
