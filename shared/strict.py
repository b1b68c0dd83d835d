"""Strict reading of JSON into dataclasses: nothing is converted, nothing is ignored, every mistake is named by its key.

For requests and for configuration alike. It knows nothing of what it reads.
"""

from collections.abc import Iterator
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

T = TypeVar("T")

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
        return _adapter(shape).validate_json(payload, strict=True, extra=unknown)
    except ValidationError as error:
        raise Mistakes(tuple(_sentences(error))) from None


# One for each shape that was ever read: as many as there are dataclasses.
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(shape: type[T]) -> TypeAdapter[T]:
    adapter: TypeAdapter[T] | None = _ADAPTERS.get(shape)
    if adapter is None:
        adapter = _ADAPTERS[shape] = TypeAdapter(shape)
    return adapter


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
