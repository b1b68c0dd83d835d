"""The commands that change nothing: `list`, `query`, `faults`, `events`, `wait`."""

import re
from typing import Annotated

import typer

from services.console.asking import check_name, fault_log, list_all, status_of, unread_of
from services.console.events import EVERYTHING, Event, event_text, progress_gist, read_event
from services.console.failures import Exit
from services.console.host_here import HostHere
from services.console.listing import is_well, list_table
from services.console.options import (
    HostConfigOption,
    HostStateDirOption,
    JsonOption,
    NameArgument,
    ServerOption,
    Session,
    names_beginning,
)
from services.console.views import faults_table, state_text, status_view
from services.console.waiting import wait_for
from services.console.watching import watch
from shared.bus.connection import Bus
from shared.clock import SystemClock
from shared.messages.status import Listed
from shared.migration.refusals import Refusal
from shared.migration.states import State

looking = typer.Typer()
_PANEL = "Look"


@looking.command("list", rich_help_panel=_PANEL)
def list_(
    context: typer.Context,
    state_dir: HostStateDirOption = None,
    config: HostConfigOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Every migration, a row each. With --json an array of what `query` tells.

    Exit status 1 when the journal lacks or contradicts what a host has, or cannot be read: then the hosts' word is told of it.
    Likewise when the application of a volume gets errors.
    Where NATS is away, does not permit it to this key, or does not reach the host on this machine: that host's, as it knows them.
    """
    session = Session(context, server, json, config)
    here = HostHere(state_dir, config, session.out)
    listed: list[Listed] = []

    async def work(bus: Bus) -> None:
        reply = await list_all(bus)
        found: list[Listed] = [here.better(each) for each in reply.migrations]
        listed.extend(sorted((*found, *reply.unlisted), key=_by_name))
        session.out.answer(listed, lambda: list_table(listed))

    try:
        session.run(work, connect_timeout_s=here.nats_timeout_s)
    except Refusal as refusal:
        here.tell_all(refusal, session.out)
    if not all(map(is_well, listed)):
        raise typer.Exit(Exit.FAILED)


def _by_name(each: Listed) -> list[tuple[int, str]]:
    """Numbers in it by their size, as on the page: vol2 before vol10."""
    parts = re.split("0*([0-9]+)", each.name)
    return [(len(part) if at % 2 else 0, part) for at, part in enumerate(parts)]


@looking.command(rich_help_panel=_PANEL)
def query(
    context: typer.Context,
    name: NameArgument,
    follow: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on telling until Ctrl-C, or until it is cleaned up.")
    ] = False,
    state_dir: HostStateDirOption = None,
    config: HostConfigOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Everything about one migration: state, progress, faults, export, clients, what is allowed now.

    Where NATS cannot tell, what the host on this machine knows of it; not with --watch. Where the journal of it cannot be read,
    what `list` tells of it, with exit status 1.
    """
    session = Session(context, server, json, config)
    check_name(name)
    here = HostHere(state_dir, config, session.out)
    unread: list[Listed] = []

    async def once(bus: Bus) -> None:
        try:
            status = here.better(await status_of(bus, name))
        except Refusal as refusal:
            unread.append(await unread_of(bus, name, refusal))
            session.out.answer(unread[0], lambda: list_table(unread))
        else:
            session.out.answer(status, lambda: status_view(status))

    async def until_told(bus: Bus) -> None:
        await watch(bus, name, session.out)

    if follow:
        session.run(until_told)
        return
    try:
        session.run(once, connect_timeout_s=here.nats_timeout_s)
    except Refusal as refusal:
        here.tell_one(name, refusal, session.out)
    if unread:
        raise typer.Exit(Exit.FAILED)


@looking.command(rich_help_panel=_PANEL)
def faults(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Only this migration's.",
            autocompletion=names_beginning,
            show_default=False,
        ),
    ] = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """The fault log, oldest first, earlier attempts included."""
    session = Session(context, server, json)
    if name is not None:
        check_name(name)

    async def work(bus: Bus) -> None:
        log = await fault_log(bus, name)
        session.out.answer(log, lambda: faults_table(log))

    session.run(work)


@looking.command(rich_help_panel=_PANEL)
def events(context: typer.Context, server: ServerOption = None, json: JsonOption = False) -> None:
    """Follow everything that passes on the bus, live, until Ctrl-C. With --json one object a line."""
    session = Session(context, server, json)
    clock = SystemClock()
    told: dict[str, object] = {}

    def is_news(event: Event) -> bool:
        gist = progress_gist(event)
        if gist is None:
            return True
        is_other = told.get(event.subject) != gist
        told[event.subject] = gist
        return is_other

    async def work(bus: Bus) -> None:
        async with bus.listen(EVERYTHING) as news:
            async for message in news:
                event = read_event(message.subject, message.payload, clock.now_rfc3339())
                if session.out.json:
                    session.out.result(event)
                elif is_news(event):
                    session.out.show(event_text(event))

    session.run(work)


@looking.command(rich_help_panel=_PANEL)
def wait(
    context: typer.Context,
    name: NameArgument,
    state: Annotated[
        State, typer.Argument(metavar="STATE", help=f"One of {', '.join(State)}.", show_default=False)
    ],
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="Give up after so long; never unless given."),
    ] = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Return when the migration is in STATE.

    Returns at once, with exit status 1, when it can no longer come to it: after a fault or an abort ended the
    attempt, after a commit, after a cleanup.
    """
    session = Session(context, server, json)
    check_name(name)

    async def work(bus: Bus) -> None:
        status = await wait_for(bus, name, state, timeout, session.out.note)
        session.out.answer(status, lambda: state_text(status.state))

    session.run(work)
