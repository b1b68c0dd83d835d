"""The `cutover` command line: its commands, and how each of them ends."""

import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer
from typer.core import TyperGroup, TyperOption
from typer.main import get_command

from services.console.comparing import comparing
from services.console.diagnosing import diagnosing
from services.console.failures import ConsoleError, Exit, usage
from services.console.initializing import initializing
from services.console.looking import looking
from services.console.moving import moving
from services.console.options import DEFAULT_SERVER, SERVER_VARIABLE
from services.console.output import Output
from services.console.recovering import recovering
from services.console.running import running
from services.console.services_config import one_line
from services.console.whole_job import migrating
from shared.config.load import ConfigError
from shared.migration.refusals import Refusal

INTERRUPTED = 130  # what shells expect after Ctrl-C

application = typer.Typer(
    name="cutover",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 refused or failed, 2 the command line is wrong.",
)


def _tell_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"cutover {version('cutover')}")
        raise typer.Exit


@application.callback()
def _before_any_command(
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            "-s",
            metavar="URL",
            envvar=SERVER_VARIABLE,
            help="Where NATS is.",
            show_default=DEFAULT_SERVER,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output and nothing else.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and end."),
    ] = False,
) -> None:
    """Move a volume from one device to another while applications use it.

    The way: setup → sync → (wait for source-selected) → select-target → commit → cleanup.
    `cutover migrate` goes it in one command; `cutover up` runs everything that is needed on this machine.
    """


application.add_typer(running)
application.add_typer(initializing)
application.add_typer(migrating)
application.add_typer(moving)
application.add_typer(comparing)
application.add_typer(looking)
application.add_typer(recovering)
application.add_typer(diagnosing)


def command_tree() -> TyperGroup:
    """The commands as they run. Help shows a flag as a flag: it takes no value, so none is named."""
    tree = get_command(application)
    if not isinstance(tree, TyperGroup):
        raise TypeError("one command alone is no group of commands")
    root = typer.Context(tree, **tree.context_settings)
    for command in (tree, *tree.commands.values()):
        for parameter in command.get_params(typer.Context(command, parent=root)):
            if isinstance(parameter, TyperOption) and parameter.is_flag:
                parameter.metavar = ""
    return tree


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit status."""
    out = Output(json="--json" in arguments)
    if (wrong := _not_text(arguments)) is not None:
        out.error(usage(wrong))
        return Exit.USAGE
    try:
        status = command_tree()(list(arguments), prog_name="cutover", standalone_mode=False)
    except typer.TyperException as error:
        return _wrong_usage(out, error)
    except (ConsoleError, Refusal) as error:
        out.error(error)
        return error.status if isinstance(error, ConsoleError) else Exit.FAILED
    except ConfigError as mistakes:  # of CUTOVER_CONFIG, CUTOVER_NATS_…, or a file that they name
        out.error(usage(one_line(mistakes)))
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return status if isinstance(status, int) else Exit.DONE


def _not_text(arguments: Sequence[str]) -> str | None:
    """What is wrong with the first argument whose bytes are no UTF-8; None where all are. What is sent has to be text."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(argument).decode(errors="backslashreplace")
            option = f"{before}: " if before.startswith("-") and not argument.startswith("-") else ""
            return f"{option}'{shown}' is not UTF-8."
    return None


def _wrong_usage(out: Output, error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "cutover"
    message = error.format_message()
    if not message.strip() or type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(message + "\n")
        return Exit.USAGE
    one_line = " ".join(message.split())  # some messages bring breaks and indents of their own
    out.error(usage(f"{one_line.rstrip('.')}. See `{command} --help`."))
    return Exit.USAGE


def main() -> None:
    """The entry point of the installed command."""
    # What the connection goes through is told by the refusal in the end; its log lines would only repeat it.
    logging.getLogger("shared.bus").addHandler(logging.NullHandler())
    logging.getLogger("shared.bus").propagate = False
    sys.exit(run(sys.argv[1:]))
