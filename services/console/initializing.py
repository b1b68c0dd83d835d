"""`cutover init`: a folder with everything that an installation with credentials and TLS needs, ready to be started."""

from typing import Annotated

import typer

from services.console.failures import usage
from services.console.options import JsonOption, Session

initializing = typer.Typer()
_PANEL = "Run"
_CHANGE_PANEL = "What is there"
_PORT_MAX = 65535
_CHANGES = {  # and what goes with each
    "add_host": {"allow", "state_dir", "ca_key"},
    "new_key": set[str](),
    "renew": {"ca_key"},
}


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
    add_host: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[=ADDRESS,…]",
            help="In a DIR that is there: a host more, with its key, user, certificate and file. Takes --allow, --state-dir.",
            rich_help_panel=_CHANGE_PANEL,
        ),
    ] = None,
    new_key: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help="In a DIR that is there: another key for a role; stop what uses it before.",
            rich_help_panel=_CHANGE_PANEL,
        ),
    ] = None,
    renew: Annotated[
        bool,
        typer.Option(
            "--renew",
            help="In a DIR that is there: all certificates anew, by the same authority, for the same names and keys.",
            rich_help_panel=_CHANGE_PANEL,
        ),
    ] = False,
    ca_key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The authority's key, where it is not in DIR/tls/ca-key.pem, or DIR/tls/ca.pem holds several authorities: for "
            "--add-host and --renew.",
            rich_help_panel=_CHANGE_PANEL,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a configuration with credentials and TLS for NATS, the services, hosts and the operator.

    Every role gets a key and the least privileges; an authority is made, and certificates for NATS and for volumes over
    TCP. Nothing is overwritten, and nothing half-done stays. The commands that come next are told.
    """
    # Only here: what certificates are made with takes longer to load than most commands run.
    out = Session(context, None, json).out
    if _is_change(context):
        from services.console.changing import Wanted, change  # noqa: PLC0415

        given = state_dir if _is_given(context, "state_dir") else None
        wanted = Wanted(
            add_host=add_host, new_key=new_key, renew=renew, ca_key=ca_key, state_dir=given, allow=allow or ()
        )
        change(folder, wanted, out)
        return
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
    install(folder, asked, out)


def _is_change(context: typer.Context) -> bool:
    """Whether an installation that is there is changed.

    Raises:
        ConsoleError: (`usage`) options that do not go together.
    """
    given = {name for name in context.params if _is_given(context, name)} - {"folder", "json", "context"}
    changes = given & _CHANGES.keys()
    if not changes:
        if "ca_key" in given:
            raise usage("--ca-key goes with --add-host or --renew.")
        return False
    if len(changes) > 1:
        raise usage(f"{' and '.join(_option(each) for each in sorted(changes))}: one at a time.")
    (change,) = changes
    if strange := given - changes - _CHANGES[change]:
        raise usage(f"{_option(min(strange))} does not go with {_option(change)}.")
    return True


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
