"""`cutover verify`, and what `commit --verify` does first: a comparison is begun, or joined, and followed to its end.

It goes on at the host whether or not anyone follows it.
"""

import asyncio

import typer
from rich.console import RenderableType
from rich.text import Text

from services.console.asking import Link, check_name, command, operation_id
from services.console.failures import ConsoleError
from services.console.options import JsonOption, NameArgument, ServerOption, Session
from services.console.output import Output
from services.console.units import bytes_text
from services.console.watching import follow
from shared.bus.connection import Bus
from shared.messages.control import PlainRequest
from shared.messages.status import MigrationStatus, Outcome, VerificationView
from shared.plain import plain

comparing = typer.Typer()


@comparing.command(rich_help_panel="Migrate")
def verify(
    context: typer.Context, name: NameArgument, server: ServerOption = None, json: JsonOption = False
) -> None:
    """Compare source and target while the application goes on writing.

    For `source-selected` and `target-selected`. It is held to the copier's throttle, and `pause` and `resume` act on it.
    Exit status 0 when both sides are equal; 1 when they differ, which is a target fault and ends the attempt, or when not
    all could be compared. Ctrl-C leaves the comparison going; the same command joins it again.
    """
    session = Session(context, server, json)
    check_name(name)

    async def work(bus: Bus) -> None:
        status = await compare_or_leave(bus, name, session.out)
        session.out.answer(status, lambda: _equal_text(status))

    session.run(work)


async def compare(link: Link, name: str, out: Output) -> MigrationStatus:
    """Have both sides compared; the status once they were found equal.

    Raises:
        ConsoleError: `different`, `incomplete`, `gone`.
        Refusal: it was not begun.
    """
    reply = await command(link, "verify", name, PlainRequest(operation_id=operation_id()))
    begun = reply.verification
    if begun is None:
        raise ConsoleError("incomplete", f"The host of {name} does not say which comparison it has begun.")
    if reply.message:
        out.note(reply.message)
    status = await follow(link, name, out, lambda now: _is_over(now, begun))
    _require_equal(status, begun)
    return status


async def compare_or_leave(link: Link, name: str, out: Output) -> MigrationStatus:
    """As `compare`, for a command that has nothing of its own to say when Ctrl-C ends it.

    Raises:
        ConsoleError: `interrupted`, and those of `compare`.
    """
    try:
        return await compare(link, name, out)
    except asyncio.CancelledError:  # Ctrl-C, for nothing else cancels a command
        out.note("")  # what follows begins a line of its own
        message = f"The comparison of {name} goes on at its host; `cutover verify {name}` joins it again"
        raise ConsoleError("interrupted", f"{message}, `cutover pause {name}` holds it.") from None


def _is_over(status: MigrationStatus, begun: VerificationView) -> bool:
    if not status.host_answers:
        return False  # it may go on there
    now = status.verification
    return now is None or now.id != begun.id or now.outcome is not None


def _require_equal(status: MigrationStatus, begun: VerificationView) -> None:
    name, ended = status.name, status.verification
    if ended is None or ended.id != begun.id:
        if status.verified_at is not None and status.verified_at >= begun.began_at:
            return  # by this comparison, or by a later one: what was equal once stays so for the attempt
        message = f"What became of the comparison of {name} is not known: its host was started anew, or has begun another."
        raise ConsoleError("incomplete", f"{message} Verify again.")
    if ended.outcome is Outcome.DIFFERENT:
        message = f"Source and target of {name} differ: {ended.detail}. That is a fault of the target"
        raise ConsoleError(
            "different",
            f"{message}: attempt {status.attempt} ends in setup, and the source has everything; see `cutover faults {name}`.",
            attempt=status.attempt,
        )
    if ended.outcome is not Outcome.EQUAL:
        raise ConsoleError("incomplete", f"The comparison of {name} is not complete: {ended.detail}.")


def _equal_text(status: MigrationStatus) -> RenderableType:
    line = Text.assemble((plain(status.name), "bold"), ": source and target are ", ("equal", "bold green"))
    return line.append(f" ({bytes_text(status.size_bytes)} compared)")
