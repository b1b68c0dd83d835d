"""Questions before what cannot be undone: on a terminal they are asked, anywhere else `--yes` must have been given."""

import sys

from services.console.failures import ConsoleError, usage
from services.console.output import Output
from services.console.plain import plain
from shared.messages.status import MigrationStatus
from shared.migration.states import CLONING_STATES, State

_YES = frozenset({"y", "yes"})


def confirm(out: Output, command: str, question: str) -> None:
    """Return when the operator says yes.

    Raises:
        ConsoleError: `usage` where nobody can be asked; `declined`.
    """
    if not sys.stdin.isatty():
        raise usage(f"{command} asks before it goes on, and there is no terminal to ask on: give --yes.")
    out.aside.print(plain(question), soft_wrap=True)
    out.aside.print("Go on? [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in _YES:
        raise ConsoleError("declined", f"{command} was not done: the question was not answered with yes.")


def commit_question(status: MigrationStatus) -> str:
    """What a commit ends for good."""
    return (
        f"Commit {status.name}: {status.target} becomes the only copy that is kept up to date.\n"
        f"From that moment {status.source} misses every write, and neither abort nor select-source can bring it back."
    )


def abort_question(status: MigrationStatus) -> str:
    """What an abort throws away."""
    copied = "" if status.synced_percent is None else f", {int(status.synced_percent)} % in sync,"
    lost = f"The copy on {status.target}{copied} counts for nothing any more: another sync begins from the start."
    return f"Abort {status.name} and go back to {status.source} alone?\n{lost}"


def cleanup_question(status: MigrationStatus, *, disconnect: bool) -> str:
    """What a cleanup ends, and what stays."""
    kept = status.target if status.state is State.COMMITTED else status.source
    lines = [
        f"Clean up {status.name}: its volume is closed for good and its name becomes free. {kept} keeps the data."
    ]
    if disconnect and status.connections:
        lines.append(f"Disconnected on the way: {', '.join(client.peer for client in status.connections)}.")
    return "\n".join(lines)


def would_be_tried(status: MigrationStatus, command: str) -> bool:
    """Whether asking makes sense: a command that will be refused is better refused than confirmed."""
    return command in status.allowed or (command == "abort" and status.state in CLONING_STATES)


def after_commit(status_source: str) -> str:
    """What the operator has to know once a commit is done."""
    return (
        "Both devices now carry the same filesystem UUIDs and labels: detach the source "
        f"({status_source}) from this machine, so that nothing mounts it by mistake."
    )
