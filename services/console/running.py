"""`cutover up`: NATS and all services on this machine, in the foreground."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from services.console.ensemble import Ensemble, Wish
from services.console.ensemble import running as ensemble_running
from services.console.failures import Exit
from services.console.interrupting import Interrupted, interruptible
from services.console.options import JsonOption, Session
from services.console.output import Output
from services.console.services_config import refuse_file_of_a_role
from services.console.state_directory import default_path

running = typer.Typer()
_PANEL = "Run"


@running.command(rich_help_panel=_PANEL)
def up(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The services' configuration (TOML); what it lacks is filled in."),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where everything is kept: /var/lib/cutover for root, else in XDG_STATE_HOME."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="A device that may be opened: a path, a pattern, or a folder (FOLDER/) for what lies in it. Repeatable.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Of the NATS server; the last one or 4222 if free, else any. 0: any.",
            show_default=False,
        ),
    ] = None,
    no_monitoring: Annotated[
        bool, typer.Option("--no-monitoring", help="Do not serve the page that shows all migrations.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run NATS and all services here, in the foreground, until Ctrl-C or SIGTERM.

    No device may be opened unless --allow or the configuration says so. With `nats.url` in the configuration, or
    CUTOVER_NATS_URL in the environment, that NATS server is used and none is started. A file with the key of one role, as
    `cutover init` writes them, is refused, also as CUTOVER_CONFIG: there each service is started with its own.

    The stop is orderly: the volumes first, NATS last. Exit status 1 means that it was not clean; no acknowledged write
    is lost then either, but running attempts begin anew.
    """
    session = Session(context, None, json)
    refuse_file_of_a_role(config, os.environ)
    wish = Wish(
        state_dir=state_dir or usual_state_dir(),
        config_file=config,
        allow=tuple(allow or ()),
        port=port,
        monitoring=not no_monitoring,
    )
    if not uvloop.run(_up(wish, session.out)):
        raise typer.Exit(Exit.FAILED)


def usual_state_dir() -> Path:
    """Where state is kept when the operator does not say."""
    return default_path(os.environ, is_root=os.geteuid() == 0)


async def _up(wish: Wish, out: Output) -> bool:
    ensemble: Ensemble | None = None
    try:
        async with interruptible(out), ensemble_running(wish, out.note) as ensemble:
            tell_ready(ensemble, out)
            await asyncio.Event().wait()
    except Interrupted:
        if ensemble is None:
            out.note("Stopped before everything was up.")
            return False
        out.note("Stopped cleanly." if ensemble.stopped_cleanly else "Stopped, but not cleanly.")
        return ensemble.stopped_cleanly
    return False


def tell_ready(ensemble: Ensemble, out: Output) -> None:
    """Say where everything is."""
    url = ensemble.config.nats.shown_url
    exports = " ".join(ensemble.export_addresses)
    if not ensemble.host.allowed_devices:
        out.note(
            "No device may be opened: give --allow PATTERN, or host.allowed_devices in the configuration."
        )
    out.say(
        f"Cutover is up: NATS at {url}, volumes at {exports}, host {ensemble.host.name}, "
        f"state in {ensemble.directory.path}."
    )
    if ensemble.page_url is not None:
        out.say(f"The page that shows all migrations: {ensemble.page_url}")
    out.say(f"Ctrl-C stops it cleanly. Other terminals: export CUTOVER_NATS_URL={url}")
    out.result({
        "ready": True,
        "nats_url": url,
        "export": list(ensemble.export_addresses),
        "host": ensemble.host.name,
        "state_dir": str(ensemble.directory.path),
        "page": ensemble.page_url,
        "pid": os.getpid(),
    })  # fmt: skip
