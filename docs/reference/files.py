"""Everything that is generated of the events' reference, as files: path below docs, and content."""

from collections.abc import Iterator
from pathlib import Path

import orjson

from docs.reference.asyncapi import document
from docs.reference.compatibility import breaches
from docs.reference.page import filled
from docs.reference.schemas import message_types, schema_of

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "EVENTS.md"
ASYNCAPI = DOCS / "events" / "asyncapi.json"
SCHEMAS = DOCS / "events" / "schemas"


def files() -> dict[Path, str]:
    """What the code says now."""
    made = {SCHEMAS / f"{shape.__name__}.json": _text(schema_of(shape)) for shape in message_types()}
    return made | {ASYNCAPI: _text(document()), PAGE: filled(PAGE.read_text(encoding="utf-8"))}


def broken_promises() -> list[str]:
    """What the schemas that are in the tree promise, and the code does not keep."""
    return list(_broken_promises())


def _broken_promises() -> Iterator[str]:
    now = {shape.__name__: schema_of(shape) for shape in message_types()}
    for file in sorted(SCHEMAS.glob("*.json")):
        yield from breaches(file.stem, orjson.loads(file.read_bytes()), now.get(file.stem))


def write() -> list[str]:
    """Bring the files up to date, unless that broke a promise; what would be broken."""
    broken = broken_promises()
    if not broken:
        for path, text in files().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return broken


def _text(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"
