"""`cutover init`: a folder with everything that an installation with credentials and TLS needs, ready to be started."""

import shlex
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from services.console.certificates import general_name
from services.console.failures import usage
from services.console.installation import HostPlan, Plan, files_of, nats_url, refuse_filled, write
from services.console.options import JsonOption, Session
from services.console.output import Output
from services.console.services_config import host_name, patterns_of
from shared.migration.names import NAME_RULE, is_valid_name

initializing = typer.Typer()
_PANEL = "Run"
_PORT_MAX = 65535


@initializing.command(rich_help_panel=_PANEL)
def init(  # noqa: PLR0913, PLR0917 - one parameter for each option
    context: typer.Context,
    folder: Annotated[
        Path,
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
            help="Where the server shows that it syncs. It asks nobody for credentials.",
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
            help="A device that hosts may open: a path, a pattern, or a folder of files. Repeatable.",
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
    out = Session(context, None, json).out
    place = folder.absolute()
    refuse_filled(place)
    plan = Plan(
        installed_at=PurePosixPath(_absolute("--installed-at", installed_at or str(place))),
        hosts=tuple(_host(each) for each in host or [host_name()]),
        nats_hosts=tuple(_reachable("--nats-host", each) for each in nats_host or ()),
        nats_port=nats_port,
        monitor=_endpoint("--nats-monitor", nats_monitor),
        store=PurePosixPath(_absolute("--nats-store", nats_store)) if nats_store else None,
        state_dir=PurePosixPath(_absolute("--state-dir", state_dir)),
        allow=tuple(pattern for each in allow or () for pattern in patterns_of(each)),
    )
    if len({each.name for each in plan.hosts}) != len(plan.hosts):
        raise usage("--host: one name is given twice.")
    files = files_of(plan, datetime.now(UTC))
    write(place, files)
    _tell(place, plan, out)
    out.result(
        {"folder": str(place), "installed_at": str(plan.installed_at), "files": sorted(map(str, files))}
    )


def _tell(folder: Path, plan: Plan, out: Output) -> None:
    at = plan.installed_at
    hosts = ", ".join(each.name for each in plan.hosts)
    out.say(
        f"Made {folder}: NATS at {nats_url(plan)}, hosts {hosts}. Each role has its own key in {folder}/secrets."
    )
    out.say("Who has tls/ca-key.pem can make certificates that all of this accepts: keep it somewhere else.")
    if str(at) != str(folder):
        out.say(f"Its files belong at {at}.")
    out.say("What comes next:")
    for line in next_commands(plan):
        out.say(f"  {line}")


def next_commands(plan: Plan) -> list[str]:
    """The command lines that start everything, in their order, and look at it."""
    at = plan.installed_at

    def path(name: str) -> str:
        return shlex.quote(str(at / name))

    return [
        f"nats-server --config {path('nats/nats-server.conf')}",
        f"python -m shared.bus.bootstrap --config {path('services/bootstrap.toml')}",
        *(
            f"python -m services.{service} --config {path(f'services/{service}.toml')}"
            for service in ("fault_recording", "state_control", "startup")
        ),
        *(
            f"python -m services.write_cloning --config {path(f'hosts/{each.name}.toml')}"
            for each in plan.hosts
        ),
        f"CUTOVER_CONFIG={path('operator.toml')} cutover list",
        f"nats --server {nats_url(plan)} --nkey {path('secrets/operator.nk')} --tlsca {path('tls/ca.pem')} micro ls",
    ]


def _host(text: str) -> HostPlan:
    name, _, addresses = text.partition("=")
    if not is_valid_name(name):
        raise usage(f"--host: {name!r} cannot name a host: {NAME_RULE}.")
    reached = tuple(_reachable("--host", each) for each in addresses.split(",") if each)
    return HostPlan(name=name, addresses=reached)


def _reachable(option: str, text: str) -> str:
    try:
        general_name(text)
    except ValueError as error:
        raise usage(f"{option}: {error}.") from None
    return text


def _endpoint(option: str, text: str) -> str:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= _PORT_MAX) or not host:
        raise usage(f"{option}: {text!r} is no ADDRESS:PORT.")
    _reachable(option, host)
    return text


def _absolute(option: str, text: str) -> str:
    if not text.startswith("/"):
        raise usage(f"{option}: {text!r} is no absolute path.")
    return text
