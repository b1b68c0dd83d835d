"""JSON Schemas of every message, made from the dataclasses themselves; what the source says of a field in a comment comes along.

A request is held to the letter, so its schema allows no other field. Records, events and replies are read by programs of other
versions, which pass over what they do not know; so do their schemas.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter

from shared.messages.channels import CHANNELS
from shared.messages.control import ErrorReply
from shared.migration.records import VERSION, AnyRecord

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
RECORDS: tuple[type, ...] = get_args(AnyRecord)
_TIMES = frozenset(
    {
        "at",
        "as_of",
        "recorded_at",
        "detected_at",
        "connected_at",
        "began_at",
        "ended_at",
        "verified_at",
        "last_at",
        "nats_lost_at",
    }
)


def message_types() -> tuple[type, ...]:
    """Every type that is a whole message, by name."""
    carried = [each for channel in CHANNELS for each in channel.carries]
    replies = [channel.reply for channel in CHANNELS if channel.reply is not None]
    return tuple(sorted({*carried, *replies, ErrorReply}, key=lambda each: each.__name__))


def is_request(shape: type) -> bool:
    """Whether a type is asked with, and so held to the letter."""
    return any(shape in channel.carries for channel in CHANNELS if channel.reply is not None)


def schema_of(shape: type) -> Schema:
    """The whole schema of a message, with everything that it refers to."""
    made = TypeAdapter(shape).json_schema(mode="validation", ref_template="#/$defs/{model}")
    shapes = {each.__name__: each for each in _parts(shape)}
    for name, part in ((shape.__name__, made), *made.get("$defs", {}).items()):
        _complete(part, shapes.get(name), closed=is_request(shape))
    return {"$schema": DIALECT, "title": shape.__name__} | made


def _complete(schema: Schema, shape: type | None, *, closed: bool) -> None:
    """Add what pydantic does not know of: comments, formats, what stands in every record, whether more may come."""
    if shape is None or not is_dataclass(shape):
        return  # an enumeration
    comments = _comments(shape)
    for name, field in schema["properties"].items():
        field.pop("title", None)
        if name in comments:
            field["description"] = comments[name]
        if name in _TIMES:
            _as_time(field)
    schema["description"] = " ".join((shape.__doc__ or "").split())
    if closed:
        schema["additionalProperties"] = False
    if shape in RECORDS:
        kind = next(field.default for field in fields(shape) if field.name == "kind")
        schema["properties"]["kind"] = {"const": str(kind)}
        schema["properties"]["version"] = {"const": VERSION, "description": "a newer one is refused"}
        schema["required"] = sorted({*schema["required"], "kind", "version", "index", "previous_digest"})


def _as_time(field: Schema) -> None:
    for part in (field, *field.get("anyOf", ())):
        if part.get("type") == "string":
            part["format"] = "date-time"


@cache
def _comments(shape: type) -> dict[str, str]:
    """What is said of each field: the comment behind it, or the one above it."""
    found: dict[str, str] = {}
    for owner in reversed(shape.__mro__):
        if is_dataclass(owner):
            source = textwrap.dedent(inspect.getsource(owner))
            lines = source.splitlines()
            for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    comment = _comment_at(lines, node.lineno - 1, (node.end_lineno or node.lineno) - 1)
                    if comment:
                        found[node.target.id] = comment
    return found


def _comment_at(lines: list[str], first: int, last: int) -> str:
    behind = [line.partition("  # ")[2] for line in lines[first : last + 1] if "  # " in line]
    if behind:
        return " ".join(behind)
    above = lines[first - 1].strip()
    return above[2:] if above.startswith("# ") else ""


def _parts(shape: object) -> Iterator[type]:
    """A dataclass and every dataclass that it is made of."""
    seen: set[object] = set()
    due = [shape]
    while due:
        each = due.pop()
        if each in seen:
            continue
        seen.add(each)
        if isinstance(each, type) and is_dataclass(each):
            yield each
            due += get_type_hints(each).values()
        else:
            due += get_args(each)
