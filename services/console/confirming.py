"""Questions before what cannot be undone: on a terminal they are asked, anywhere else `--yes` must have been given."""

import asyncio
import sys

from services.console.failures import ConsoleError, usage
from services.console.output import Output

_YES = frozenset({"y", "yes"})


async def confirm(out: Output, command: str, question: str) -> None:
    """Return when the operator says yes.

    Raises:
        ConsoleError: `usage` where nobody can be asked; `declined`.
    """
    if not can_ask():
        what = " ".join(line.strip() for line in question.splitlines())
        raise usage(
            f"{command} asks before it goes on, and there is no terminal to ask on. {what} If so, give --yes."
        )
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
