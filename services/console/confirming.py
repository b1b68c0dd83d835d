"""Questions before what cannot be undone: on a terminal they are asked, anywhere else `--yes` must have been given."""

import asyncio
import sys

from services.console.failures import ConsoleError, usage
from services.console.output import Output
from shared.messages.status import MigrationStatus
from shared.migration.states import State

_YES = frozenset({"y", "yes"})


async def confirm(out: Output, command: str, question: str) -> None:
    """Return when the operator says yes.

    Raises:
        ConsoleError: `usage` where nobody can be asked; `declined`.
    """
    if not can_ask():
        raise usage(f"{command} asks before it goes on, and there is no terminal to ask on: give --yes.")
    if not await agrees(out, question):
        raise ConsoleError("declined", f"{command} was not done: the question was not answered with yes.")


def can_ask() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


async def agrees(out: Output, question: str) -> bool:
    """Whether the operator answers with yes. Standard output is left to the answer of the command."""
    for line in question.splitlines():
        out.note(line)
    out.aside.print("Go on? [y/N] ", end="")
    return (await read_line()).strip().lower() in _YES


async def read_line() -> str:
    """The next line of standard input, without keeping the loop from anything else; empty at its end."""
    loop = asyncio.get_running_loop()
    typed = asyncio.Event()
    try:
        loop.add_reader(sys.stdin.fileno(), typed.set)
    except (OSError, ValueError):  # a file or /dev/null, which never keeps anyone waiting
        return sys.stdin.readline()
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline()


def commit_question(status: MigrationStatus) -> str:
    """What a commit ends for good, and what is known of the target."""
    known = (
        f"\nBoth sides were last found equal everywhere at {status.verified_at}."
        if status.verified_at is not None
        else ""
    )
    return (
        f"Commit {status.name}: {status.target} becomes the only copy that is kept up to date.\n"
        f"From that moment {status.source} misses every write, and neither abort nor select-source can bring it back."
        f"{known}"
    )


def abort_question(status: MigrationStatus) -> str:
    """What an abort throws away."""
    copied = "" if status.synced_percent is None else f", {int(status.synced_percent)} % in sync,"
    return (
        f"Abort {status.name} and go back to {status.source} alone?\n"
        f"The copy on {status.target}{copied} counts for nothing any more: another sync begins from the start."
    )


def cleanup_question(status: MigrationStatus, *, disconnect: bool) -> str:
    """What a cleanup ends, and what stays."""
    kept = status.target if status.state is State.COMMITTED else status.source
    text = f"Clean up {status.name}: its volume is closed for good and its name becomes free. {kept} keeps the data."
    if disconnect and status.connections:
        text += f"\nDisconnected on the way: {', '.join(client.peer for client in status.connections)}."
    return text


def vouch_question(name: str) -> str:
    """What an operator answers for."""
    return (
        f"Vouch that the servers of the remote devices of {name} have dropped every old connection?\n"
        "Whatever was sent over one and still lands would overwrite newer data, and nothing would tell."
    )


def after_commit(source: str) -> str:
    """What the operator has to know once a commit is done."""
    return (
        "Both devices now carry the same filesystem UUIDs and labels: detach the source "
        f"({source}) from this machine, so that nothing mounts it by mistake."
    )
