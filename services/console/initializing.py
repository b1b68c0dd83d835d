"""`cutover init`: a folder with everything that an installation with credentials and TLS needs, ready to be started."""

from typing import Annotated

import typer

from services.console.options import JsonOption, Session

initializing = typer.Typer()
_PANEL = "Run"
_PORT_MAX = 65535


@initializing.command(rich_help_panel=_PANEL)
def init(  # noqa: PLR0913, PLR0917 - one parameter for each option
    context: typer.Context,
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="The folder to make; it may be there if it is empty.", show_default=False
        ),
    ],
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=ADDRESS,…]",
            help="A host, and what clients of its volumes reach it under. Repeatable; this machine unless given.",
        ),
    ] = None,
    nats_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name or address that other machines reach NATS under. Repeatable, the first one is used; "
            "without it, NATS listens for this machine alone.",
        ),
    ] = None,
    nats_port: Annotated[int, typer.Option(metavar="PORT", min=1, max=_PORT_MAX, help="Of NATS.")] = 4222,
    nats_monitor: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS:PORT",
            help="Where the server shows that it syncs. It asks nobody for credentials, and tells "
            "what everyone listens on: no address that other machines reach.",
        ),
    ] = "127.0.0.1:8222",
    nats_store: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where the journal is kept; DIR/nats/jetstream unless given."),
    ] = None,
    state_dir: Annotated[
        str,
        typer.Option(metavar="PATH", help="Where each host keeps its own state, in a folder of its name."),
    ] = "/var/lib/cutover",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="A device that hosts may open: a path, a pattern, or a folder (FOLDER/) for what lies in it. Repeatable.",
        ),
    ] = None,
    installed_at: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Where the files will be used, if elsewhere than in DIR: /etc/cutover, for example.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a configuration with credentials and TLS for NATS, the services, hosts and the operator.

    Every role gets a key and the least privileges; an authority is made, and certificates for NATS and for volumes over
    TCP. Nothing is overwritten, and nothing half-done stays. The commands that come next are told.
    """
    # Only here: what certificates are made with takes longer to load than most commands run.
    from services.console.installing import Asked, install  # noqa: PLC0415

    asked = Asked(
        hosts=host or (),
        nats_hosts=nats_host or (),
        nats_port=nats_port,
        nats_monitor=nats_monitor,
        nats_store=nats_store,
        state_dir=state_dir,
        allow=allow or (),
        installed_at=installed_at,
    )
    install(folder, asked, Session(context, None, json).out)
