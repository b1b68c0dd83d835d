"""The commands for a volume that stays closed: `recover` shows what is known and what may be done, `adopt` gives one's word."""

import asyncio
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.console.asking import check_name, command, operation_id
from services.console.confirming import confirm
from services.console.failures import ConsoleError, usage
from services.console.options import JsonOption, NameArgument, ServerOption, Session, YesOption
from services.console.views import reply_text
from shared.bus.connection import Bus
from shared.messages.control import PlainRequest, control_subject
from shared.messages.recovery import (
    AdoptRequest,
    ChoiceView,
    GiveUpRequest,
    RecoverRequest,
    RecoveryReply,
    SideKnown,
    Telling,
)
from shared.migration.devices import Side
from shared.plain import plain

recovering = typer.Typer()
_PANEL = "Recover"

# The host looks at the devices meanwhile, and one that hangs is given up only after its time.
LOOK_TIMEOUT_S = 60.0
_STYLES = {"safe": "green", "asks": "yellow", "refused": "red"}

HostOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST", help="The host that shall have it, when the one it belongs to is lost for good."
    ),
]


@recovering.command(rich_help_panel=_PANEL)
def recover(
    context: typer.Context,
    name: NameArgument,
    try_again: Annotated[
        bool, typer.Option("--try-again", help="Have it judged anew, as at a start of its host.")
    ] = False,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Forget it; the devices keep what they hold.")
    ] = False,
    host: HostOption = None,
    yes: YesOption = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Show why a volume is closed, what each side is known to hold, and what may be done about it; or do it.

    Changes nothing unless told to. What may lose something asks first.
    """
    session = Session(context, server, json)
    check_name(name)
    if try_again and give_up:
        raise usage("--try-again and --give-up exclude each other.")

    async def work(bus: Bus) -> None:
        if try_again:
            reply = await command(bus, "try-again", name, PlainRequest(operation_id=operation_id()))
            session.out.answer(reply, lambda: reply_text(reply, f"open again, in {reply.state}"))
        elif give_up:
            accept = yes or await _agreed(session, bus, name, "give-up", None)
            request = GiveUpRequest(accept=accept, operation_id=operation_id())
            reply = await command(bus, "give-up", name, request)
            done = "given up" if reply.message else "given up; the name is free"
            session.out.answer(reply, lambda: reply_text(reply, done))
        else:
            known = await _known(bus, name, host)
            session.out.answer(known, lambda: recovery_view(known))

    session.run(work)


@recovering.command(rich_help_panel=_PANEL)
def adopt(
    context: typer.Context,
    name: NameArgument,
    authority: Annotated[
        Side, typer.Option(metavar="SIDE", help="The side that holds what counts: source or target.")
    ],
    host: HostOption = None,
    yes: YesOption = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Say which side of a closed volume is right, and open it: in `setup` on the source, or `committed` on the target.

    For a witness that is lost, or a host that is: nothing proves any more who holds every write, so it is your word that
    counts, and it is recorded. See `cutover recover NAME` first. What may lose something asks.
    """
    session = Session(context, server, json)
    check_name(name)

    async def work(bus: Bus) -> None:
        accept = yes or await _agreed(session, bus, name, f"adopt-{authority}", host)
        request = AdoptRequest(authority=authority, host=host, accept=accept, operation_id=operation_id())
        reply = await command(bus, "adopt", name, request)
        done = f"{reply.state}, on the {reply.authority} alone"
        session.out.answer(
            reply, lambda: reply_text(reply, done if reply.witness else f"{done}, and not open yet")
        )

    session.run(work)


async def _known(bus: Bus, name: str, host: str | None) -> RecoveryReply:
    subject = control_subject("recover", name)
    return await bus.request(subject, RecoverRequest(host=host), RecoveryReply, timeout_s=LOOK_TIMEOUT_S)


async def _agreed(session: Session, bus: Bus, name: str, choice: str, host: str | None) -> bool:
    """Whether the operator was asked and agrees. What is safe is not asked for, and what is refused says so itself."""
    known = await _known(bus, name, host)
    offered = next(each for each in known.choices if each.choice == choice)
    if offered.consent != "asks":
        return False
    question = f"{_shown(choice)} {name}: {offered.reason}."
    try:
        await confirm(session.out, choice, "\n".join((question, *map(_side_line, known.sides))))
    except asyncio.CancelledError:  # Ctrl-C
        session.out.note("")
        raise ConsoleError("interrupted", f"{choice} was not asked for; nothing was done.") from None
    return True


def _shown(choice: str) -> str:
    return choice.replace("-", " ").capitalize()


def _side_line(side: SideKnown) -> str:
    return f"  {side.side} {side.device}: {side.holds}"


def recovery_view(known: RecoveryReply) -> RenderableType:
    """Everything that is known, and what may be done."""
    head = Text.assemble((plain(known.name), "bold"), f"  {_standing(known)}")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    for label, value in _facts(known):
        facts.add_row(label, value)
    choices = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("CHOICE", "", "WHY"):
        choices.add_column(heading, overflow="fold")
    for choice in known.choices:
        choices.add_row(*_choice_row(choice))
    return Group(head, facts, Text(""), choices)


_STANDINGS = {
    "open": "open on host {}: nothing is to be recovered",
    "closed": "closed on host {}",
    "waiting": "host {} is up, and not admitted yet",
    "away": "its host, {}, does not answer",
}


def _standing(known: RecoveryReply) -> str:
    own = plain(known.recorded_host or known.host)
    words = _STANDINGS[known.standing].format(own)
    if known.warnings:
        words += ", but see the warning"
    return words if own == plain(known.host) else f"{words}; looked at from {plain(known.host)}"


def _facts(known: RecoveryReply) -> Iterable[tuple[str, RenderableType]]:
    yield "uuid", plain(known.uuid or "not known")
    if known.why:
        yield "why", Text(plain(known.why), style="red")
    for warning in known.warnings:
        yield "warning", Text(plain(warning), style="yellow")
    for telling in known.tellings:
        yield telling.by, _telling(telling)
    for side in known.sides:
        yield side.side.value, _side(side)


def _telling(telling: Telling) -> RenderableType:
    doubt = Text(plain(telling.doubt), style="yellow")
    if telling.decision is None:
        return doubt
    state = telling.state.value if telling.state is not None else "being removed"
    words = f"{state}, authority {telling.authority}, attempt {telling.attempt}, decision {telling.decision}"
    if telling.flag is not None:
        words += f", flag {telling.flag}"
    faults = [
        f"{count} {side} fault{'' if count == 1 else 's'}"
        for side, count in (("source", telling.source_faults), ("target", telling.target_faults))
        if count
    ]
    words += f", {' and '.join(faults)}" if faults else ""
    words += f"; last record {plain(telling.last_at)}" if telling.last_at else ""
    return Text.assemble(words, "\n", doubt) if telling.doubt else Text(words)


def _side(side: SideKnown) -> RenderableType:
    line = Text.assemble(plain(side.device), (f"  holds {plain(side.holds)}", "bold"))
    if side.finding is not None and not side.finding.usable:
        line.append(f"\n{plain(side.finding.message)}", style="red")
    return line


def _choice_row(choice: ChoiceView) -> tuple[RenderableType, ...]:
    command_line = Text(plain(choice.command), style="" if choice.consent != "refused" else "dim")
    return command_line, Text(choice.consent, style=_STYLES[choice.consent]), plain(choice.reason)
