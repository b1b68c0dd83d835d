"""What may become of a schema that others rely on: fields are added, no more. The schemas in docs/events are the measure."""

from collections.abc import Iterator

from docs.reference.schemas import Schema

_MEANING = ("type", "const", "format", "anyOf", "default", "additionalProperties")


def breaches(name: str, before: Schema, now: Schema | None) -> Iterator[str]:
    """What somebody who relies on the schema as it was would stumble over: a sentence each, with what to do."""
    if now is None:
        yield f"{name}: the message is gone. Keep it, and give what takes its place another name."
        return
    yield from _differences(name, _whole(before, before), _whole(now, now))


def _differences(path: str, before: Schema, now: Schema) -> Iterator[str]:
    known, there = before.get("properties", {}), now.get("properties", {})
    for key in known:
        if key not in there:
            yield (
                f"{path}.{key}: the field is gone, and records and programs of today have it. Keep it; one that means nothing "
                "any more keeps its default."
            )
        elif key != "version":  # that one says itself what it is
            yield from _differences(f"{path}.{key}", known[key], there[key])
    for key in sorted(set(now.get("required", ())) - set(before.get("required", ()))):
        what = "is new and has no default" if key not in known else "has lost its default"
        yield f"{path}.{key}: the field {what}, and records and requests of today lack it. Give it a default."
    for key in sorted(set(before.get("required", ())) - set(now.get("required", ()))):
        if key in there:
            yield f"{path}.{key}: the field was always there, and may be left out now. Keep it required."
    if before.get("items") and now.get("items"):  # what a list holds may grow like anything else
        yield from _differences(f"{path}[]", before["items"], now["items"])
    yield from _other_meanings(path, before, now)


def _other_meanings(path: str, before: Schema, now: Schema) -> Iterator[str]:
    for value in sorted(set(before.get("enum", ())) - set(now.get("enum", ()))):
        yield f"{path}: the value {value!r} is gone, and records of today have it. Keep it."
    for word in _MEANING:
        if before.get(word) != now.get(word):
            yield (
                f"{path}: {word} was {before.get(word)!r} and is {now.get(word)!r}. Leave the field as it is, and add "
                "another; where that cannot be, raise VERSION and go on reading what is older."
            )


def _whole(schema: Schema, root: Schema) -> Schema:
    """The schema without references and without words for people."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _whole(root["$defs"][name], root) | {key: schema[key] for key in ("default",) if key in schema}
    made = {
        key: value for key, value in schema.items() if key not in {"description", "title", "$defs", "$schema"}
    }
    if "properties" in made:
        made["properties"] = {key: _whole(each, root) for key, each in made["properties"].items()}
    if "items" in made:
        made["items"] = _whole(made["items"], root)
    if "anyOf" in made:
        parts = [_whole(each, root) for each in made["anyOf"]]
        made |= _optional(parts)
    return made


def _optional(parts: list[Schema]) -> Schema:
    """A part that may be null too is compared like that part alone, so that what is in it may grow likewise."""
    others = [part for part in parts if part.get("type") != "null"]
    if len(others) == 1 and len(parts) == 2:  # noqa: PLR2004 - it, and null
        return {"anyOf": "or null"} | others[0]
    return {"anyOf": parts}
