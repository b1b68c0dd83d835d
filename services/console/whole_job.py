"""`cutover migrate`: the command line of the whole job, and the services that it runs on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from services.console.asking import check_name, list_all
from services.console.command_line import command_line
from services.console.confirming import can_ask
from services.console.ensemble import Wish
from services.console.ensemble import running as ensemble_running
from services.console.failures import ConsoleError, usage
from services.console.going_on import GoingOn
from services.console.interrupting import Interrupted, interruptible
from services.console.migrating import Job, Migrating, device_of, name_for
from services.console.options import CONNECT_TIMEOUT_S, JsonOption, ServerOption, Session, YesOption
from services.console.running import usual_state_dir
from services.console.state_directory import nats_urls_of
from shared.bus.connection import Bus, connect
from shared.clock import SystemClock
from shared.config.model import NatsConfig
from shared.migration.refusals import Code, Refusal

migrating = typer.Typer()
_PANEL = "Run"


@migrating.command(rich_help_panel=_PANEL)
def migrate(  # noqa: PLR0913, PLR0917 - one parameter for each option
    context: typer.Context,
    source: Annotated[str, typer.Option(metavar="URI", help="The device that has the data.")],
    target: Annotated[str, typer.Option(metavar="URI", help="The device to move to; at least as large.")],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The migration's name; made of the source's unless given."),
    ] = None,
    attach: Annotated[
        bool,
        typer.Option(
            "--attach", help="Begin copying when the first client has connected, instead of at Enter."
        ),
    ] = False,
    host: Annotated[str | None, typer.Option(metavar="HOST", help="As for setup.")] = None,
    overwrite_target: Annotated[
        bool,
        typer.Option(
            "--overwrite-target", help="Accept a target that carries a filesystem or anything else."
        ),
    ] = False,
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where services that are started here keep everything.")
    ] = None,
    yes: YesOption = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Do the whole job: pair, copy, switch, commit, clean up.

    Uses the services that run; where none do, it starts them, as `cutover up` does, and lets them open these two
    devices alone. Prints the volume's URI, waits for Enter (or a client, with --attach), shows the progress, and asks
    before the commit.

    Ctrl-C at any point is safe: nothing is lost, and the command line that goes on from there is told.
    """
    session = Session(context, server, json)
    job = Job(
        name=check_name(name or name_for(source)),
        source=source,
        target=target,
        host=host,
        overwrite_target=overwrite_target,
        attach=attach,
        yes=yes,
    )
    if not yes and not can_ask():
        raise usage("migrate asks before it commits, and there is no terminal to ask on: give --yes.")
    going_on = GoingOn(
        name=job.name,
        write=partial(command_line, context),
        options={
            "name": job.name,
            "source": device_of(source),
            "target": device_of(target),
            "state_dir": str(state_dir.absolute()) if state_dir is not None else None,
        },
    )
    uvloop.run(_migrate(job, session, state_dir, going_on))


async def _migrate(job: Job, session: Session, state_dir: Path | None, going_on: GoingOn) -> None:
    out = session.out
    try:
        async with interruptible(out), _services(job, session, state_dir, going_on.where) as (bus, is_ours):
            way = Migrating(bus, job, out, going_on)
            try:
                status = await way.go()
                is_gone = await way.offer_cleanup()
            except (ConsoleError, Refusal) as error:
                if is_ours:
                    await way.linger(because=error.message)
                raise
            if is_ours and not is_gone:
                await way.linger()
            out.result(status)
    except Interrupted:
        raise ConsoleError("interrupted", going_on.advice) from None


@asynccontextmanager
async def _services(
    job: Job, session: Session, named: Path | None, where: dict[str, str]
) -> AsyncIterator[tuple[Bus, bool]]:
    """A connection to services that run, or that are started for as long as the context is open; whether they were.

    Where the operator named a NATS server, that one is meant, and nothing is started; where a state directory, what runs
    on it, and nothing else. `where` takes the option that leads to these services again.
    """
    state_dir = (named or usual_state_dir()).absolute()
    bus = await _found(session, state_dir, where, only_there=named is not None)
    if bus is not None:
        try:
            yield bus, False
        finally:
            await bus.close()
        return
    devices = (device_of(job.source), device_of(job.target))
    wish = Wish(state_dir=state_dir, allow=devices, logs_to_files=True)
    where["state_dir"] = str(state_dir)
    session.out.note(f"No services run: starting them here, with their state and logs in {state_dir}.")
    async with ensemble_running(wish, session.out.note) as ensemble:
        bus = await connect(ensemble.config.nats, name="console", clock=SystemClock())
        try:
            yield bus, True
        finally:
            await bus.close()


async def _found(session: Session, state_dir: Path, where: dict[str, str], *, only_there: bool) -> Bus | None:
    if session.server_was_named:
        bus: Bus | None = await _running_services(session.nats_at(session.server), must=True)
        where["server"] = session.server
        return bus
    candidates = [({"state_dir": str(state_dir)}, server) for server in nats_urls_of(state_dir)]
    if not only_there:
        candidates.append(({"server": session.server}, session.server))
    for option, server in candidates:
        bus = await _running_services(session.nats_at(server), must=False)
        if bus is not None:
            where.update(option)
            return bus
    return None


async def _running_services(nats: NatsConfig, *, must: bool) -> Bus | None:
    try:
        bus = await connect(nats, name="console", clock=SystemClock(), timeout_s=CONNECT_TIMEOUT_S)
    except Refusal:
        if must:
            raise
        return None
    try:
        await list_all(bus)
    except Refusal as refusal:
        await bus.close()
        if must or refusal.code is not Code.SERVICE_AWAY:
            raise
        return None
    return bus
