"""The parts of EVENTS.md that come from the table of channels, and one example of each event."""

import re
from collections.abc import Callable, Mapping

import orjson

from docs.parts import filled as filled_with
from docs.reference.asyncapi import example_of
from shared.messages.channels import CHANNELS, Channel, Kind


def _table(kind: Kind) -> str:
    rows = ["| subject | carries | answered with | what it is |", "|---|---|---|---|"]
    return "\n".join([*rows, *(_row(channel) for channel in CHANNELS if channel.kind is kind)])


def _row(channel: Channel) -> str:
    address = re.sub(r"{(\w+)}", lambda found: found[1].upper(), channel.address)
    carries = ", ".join(_link(shape) for shape in channel.carries)
    answered = "—" if channel.reply is None else _link(channel.reply)
    return f"| `{address}` | {carries} | {answered} | {channel.summary} |"


def _link(shape: type) -> str:
    return f"[{shape.__name__}](events/schemas/{shape.__name__}.json)"


def _events() -> str:
    """The table without a column that says nothing."""
    rows = ["| subject | carries | told by | what it is |", "|---|---|---|---|"]
    told = (channel for channel in CHANNELS if channel.kind is Kind.EVENT)
    by_service = (_row(channel).replace(" | — | ", f" | `{channel.service}` | ") for channel in told)
    return "\n".join([*rows, *by_service])


def _examples() -> str:
    shapes = dict.fromkeys(
        shape for channel in CHANNELS if channel.kind is Kind.EVENT for shape in channel.carries
    )
    parts = []
    for shape in shapes:
        text = orjson.dumps(example_of(shape)).decode()
        parts.append(
            f"`{shape.__name__}`: {(shape.__doc__ or '').strip().splitlines()[0]}\n\n```json\n{text}\n```"
        )
    return "\n\n".join(parts)


PARTS: Mapping[str, Callable[[], str]] = {
    "events": _events,
    "commands": lambda: _table(Kind.COMMAND),
    "internal": lambda: _table(Kind.INTERNAL),
    "examples": _examples,
}


def filled(text: str) -> str:
    """The page with every generated part as the code has it now.

    Raises:
        ValueError: the markers of a part are missing.
    """
    return filled_with(text, PARTS, "the page")
