"""Holds messages against the reference in docs/events: a validator for each schema, times included."""

import json
from datetime import datetime
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.protocols import Validator

from docs.reference.files import SCHEMAS
from docs.reference.schemas import Schema

_FORMATS = FormatChecker(())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).utcoffset() is not None


@cache
def validator_of(name: str) -> Validator:
    """That of a message, by the schema that is in the tree."""
    return validator(json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8")))


def validator(schema: Schema) -> Validator:
    """That of any schema."""
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=_FORMATS)


def mistakes(checker: Validator, value: Any) -> list[str]:
    """What is wrong, with where."""
    return [f"{each.json_path}: {each.message}" for each in checker.iter_errors(value)]
