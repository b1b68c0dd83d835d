"""Strict reading of JSON into dataclasses: nothing is converted, nothing is ignored, every mistake is named by its key.

Numbers have a bound, too: JSON allows any, but whoever is told one later has 64 bits for it, and nothing that is counted or
measured here is negative. For requests and for configuration alike. It knows nothing of what it reads.
"""

from collections.abc import Iterator
from typing import Literal, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, SchemaValidator

T = TypeVar("T")

INTEGER_MAX = 2**63 - 1
_QUANTITY_MAX = 1e18  # of a rate or a duration; rounded, it still fits into 64 bits

_NOT_KEYS = frozenset({"function-after", "function-before", "function-wrap", "nullable"})


class Mistakes(ValueError):
    """What is wrong with a document: one sentence for each mistake, each beginning with the key that it is about."""

    def __init__(self, sentences: tuple[str, ...]) -> None:
        """Keep the sentences; as a string they are joined."""
        super().__init__("; ".join(sentences))
        self.sentences = sentences


def read_json(shape: type[T], payload: bytes, *, unknown: Literal["forbid", "ignore"] = "forbid") -> T:
    """Read a JSON document of the shape of a dataclass.

    Raises:
        Mistakes: all of them together.
    """
    try:
        read: T = _validator(shape).validate_json(payload, strict=True, extra=unknown)
    except ValidationError as error:
        raise Mistakes(tuple(_sentences(error))) from None
    return read


# One for each shape that was ever read: as many as there are dataclasses.
_VALIDATORS: dict[type, SchemaValidator] = {}


def _validator(shape: type) -> SchemaValidator:
    validator = _VALIDATORS.get(shape)
    if validator is None:
        validator = _VALIDATORS[shape] = SchemaValidator(
            cast("CoreSchema", _bounded(TypeAdapter(shape).core_schema))
        )
    return validator


def _bounded(schema: object) -> object:
    """Pydantic's schema of a shape with a bound on every number, so that no field can be forgotten."""
    match schema:
        case dict() if schema.get("type") == "int":
            return {"ge": 0, "le": INTEGER_MAX} | schema  # a field's own bounds count
        case dict() if schema.get("type") == "float":
            return schema | {"ge": -_QUANTITY_MAX, "le": _QUANTITY_MAX, "allow_inf_nan": False}
        case dict():
            return {key: _bounded(part) for key, part in schema.items()}
        case list() | tuple():
            return type(schema)(_bounded(part) for part in schema)
        case _:
            return schema


def _sentences(error: ValidationError) -> Iterator[str]:
    for mistake in error.errors(include_url=False, include_input=False):
        key = _key(mistake["loc"])
        yield f"{key}: {_wording(mistake)}" if key else _wording(mistake)


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if part not in _NOT_KEYS)


def _wording(mistake: ErrorDetails) -> str:
    match mistake["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            return "unknown field"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return "required, but missing"
        case "json_invalid":
            return f"not JSON: {mistake['ctx']['error']}"
        case "dataclass_type":
            return "must be an object"
        case "value_error":  # a check of our own; pydantic would put a name for it before its words
            return str(mistake["ctx"]["error"])
        case _:
            return str(mistake["msg"])
