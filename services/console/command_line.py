"""A command line built anew from what was parsed, for whoever has to give it again.

It knows no option by name: every option of the command that was given appears, also one that does not exist yet. What an
option means, and which of them must not be repeated, is the command's own business.
"""

import shlex
from collections.abc import Iterator, Mapping

import typer

Replacement = str | bool | None
"""In place of what was given: another value, a flag that is set, or nothing at all."""


def command_line(context: typer.Context, replaced: Mapping[str, Replacement]) -> str:
    """The command line of this context's command, quoted for a shell.

    An option counts as given when it stood on the command line, behind the command's name or before it, or came from
    the environment; the new line does not depend on that environment.
    """
    words = context.command_path.split()
    for option in context.command.params:
        if option.param_type_name == "option" and option.name is not None:
            value = replaced[option.name] if option.name in replaced else given(context, option.name)
            words += _words(_long(option.opts), value)
    return shlex.join(words)


def given(context: typer.Context, name: str) -> object:
    """The value that an option was given; None when its default counts.

    What stands behind the command's name goes before what stands before it, and both before the environment.
    """
    for source in ("COMMANDLINE", "ENVIRONMENT"):
        for place in (context, context.find_root()):
            found = place.get_parameter_source(name)
            if found is not None and found.name == source:
                return place.params[name]
    return None


def _long(names: list[str]) -> str:
    return max(names, key=len)


def _words(option: str, value: object) -> Iterator[str]:
    match value:
        case None | False:
            return
        case True:
            yield option
        case list() | tuple():
            for each in value:
                yield from _words(option, each)
        case _:
            yield option
            yield str(value)
