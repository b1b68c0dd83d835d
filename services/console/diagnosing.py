"""`cutover doctor`: looks at configuration, NATS, services and this machine, and says what goes wrong, or will."""

import os
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.text import Text

from services.console.command_line import given
from services.console.doctor.facts import Facts
from services.console.doctor.findings import Outcome
from services.console.doctor.looking_at_bus import look_at_bus
from services.console.doctor.looking_at_files import look_at_files, look_at_tls
from services.console.doctor.looking_at_machine import look_at_machine
from services.console.doctor.table import Line, lines
from services.console.failures import Exit
from services.console.named_nats import CONFIG_VARIABLE
from services.console.options import JsonOption, ServerOption
from services.console.output import Output
from services.console.running import usual_state_dir
from services.console.state_directory import StateDirectory
from shared.bus.unconnected import Unconnected
from shared.clock import SystemClock
from shared.config.load import ConfigError, load, load_nats
from shared.config.model import Config, NatsConfig
from shared.migration.refusals import Refusal
from shared.plain import plain

diagnosing = typer.Typer()
_OF_INSTALLATION = "services/bootstrap.toml"
_OF_HOSTS = "hosts/*.toml"

_STYLES = {Outcome.OK: "green", Outcome.WARNING: "bold yellow", Outcome.FAILURE: "bold red"}
_NAME_COLUMNS = 16


@diagnosing.command(rich_help_panel="Look")
def doctor(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar=CONFIG_VARIABLE,
            help="The configuration of a service or a host; that of the last `cutover up` here unless given.",
            show_default=False,
        ),
    ] = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Look for what goes wrong on real machines: server, permissions, clocks, devices, space, limits. Changes nothing.

    One line each: ok, warning or failure, and what to do. Exit status 1 when there is a failure.
    """
    # Not a session, which would heed the file of CUTOVER_CONFIG beside the one that is named.
    out = Output(json=json or bool(given(context, "json")))
    named = given(context, "server") or server
    file = config or _last_config()
    found = list(lines(uvloop.run(_facts(file, str(named) if named else None))))
    counts = Counter(line.outcome for line in found)
    out.result({
        "ok": not counts[Outcome.FAILURE],
        "checks": [
            {"check": line.check, "outcome": line.outcome, "message": line.message, "todo": line.todo}
            for line in found
        ],
    })  # fmt: skip
    for line in found:
        out.people.print(_text(line), soft_wrap=True)  # a line each, however wide the terminal is
    out.say(", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome) + ".")
    if counts[Outcome.FAILURE]:
        raise typer.Exit(Exit.FAILED)


def _last_config() -> Path | None:
    """What `cutover up` has run with on this machine, if it ever did."""
    file = StateDirectory(usual_state_dir()).config
    return file if file.is_file() else None


async def _facts(file: Path | None, server: str | None) -> Facts:
    name = f"{file} and the environment" if file else "the environment"
    config: Config | None = None
    mistakes: tuple[str, ...] = ()
    try:
        config = load(file, os.environ)
    except ConfigError as error:
        mistakes = tuple(line.strip() for line in str(error).splitlines()[1:]) or (str(error),)
    folder = _installation(file)
    facts = Facts(
        config=config,
        config_name=name,
        mistakes=mistakes,
        installation=None if folder is None else str(folder),
        installed_hosts=() if folder is None else tuple(sorted(each.stem for each in folder.glob(_OF_HOSTS))),
    )
    if config is not None:
        now = datetime.now(UTC)
        facts = replace(facts, files=look_at_files(config, now), tls_mistakes=look_at_tls(config, now))
    if (nats := _nats(file, server, config)) is not None:
        facts = await _with_bus(facts, nats)
    return facts if config is None else replace(facts, machine=look_at_machine(config))


def _installation(file: Path | None) -> Path | None:
    """The folder that `cutover init` made, if the configuration is in one."""
    if file is None:
        return None
    folders = file.absolute().parents
    return next((folder for folder in folders[:2] if (folder / _OF_INSTALLATION).is_file()), None)


def _nats(file: Path | None, server: str | None, config: Config | None) -> NatsConfig | None:
    """Whom to ask; nobody, where that stands in what cannot be read."""
    try:
        nats = config.nats if config is not None else load_nats(file, os.environ)
    except ConfigError:
        return None if server is None else NatsConfig(url=server)
    return nats if server is None else replace(nats, url=server)


async def _with_bus(facts: Facts, nats: NatsConfig) -> Facts:
    try:
        return replace(facts, bus=await look_at_bus(nats, SystemClock()))
    except Unconnected as unconnected:
        return replace(facts, bus_trouble=unconnected.message, bus_why=unconnected.why)
    except (ConfigError, Refusal) as error:
        return replace(facts, bus_trouble=error.message if isinstance(error, Refusal) else str(error))


def _text(line: Line) -> Text:
    """`OUTCOME  CHECK  MESSAGE`, and behind an arrow what to do."""
    words = Text()
    words.append(f"{line.outcome:<8}", _STYLES[line.outcome])
    words.append(f"{line.check:<{_NAME_COLUMNS}}", "bold")
    words.append(plain(line.message))
    if line.todo:
        words.append(f"  → {plain(line.todo)}", "italic")
    return words
