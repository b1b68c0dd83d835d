"""Messages and records as bytes: JSON out, and in again strictly, so that what was misspelt is told and not guessed at.

Whoever asks is held to the letter: unknown fields, wrong types and documents beyond the bound are refused by name.
Replies and records are read by those who asked or came later; there a field that a newer version added is passed over,
and a record that *means* something else in a newer version says so by its version number.
"""

from dataclasses import fields, is_dataclass
from typing import TypeVar

import orjson

from shared.migration.records import (
    VERSION,
    AnyRecord,
    FaultRecord,
    FlagClearRecord,
    FlagSetRecord,
    IntentRecord,
    Kind,
    RepairRecord,
    StateRecord,
    TombstoneRecord,
)
from shared.migration.refusals import Code, Refusal
from shared.strict import Mistakes, read_json

T = TypeVar("T")

REQUEST_BYTES_MAX = 64 * 1024
RECORD_BYTES_MAX = 64 * 1024
MESSAGE_BYTES_MAX = 1024 * 1024  # what NATS carries unless it is told otherwise

_EMPTY = b"{}"
_RECORDS: dict[str, type[AnyRecord]] = {
    Kind.STATE: StateRecord,
    Kind.INTENT: IntentRecord,
    Kind.REPAIR: RepairRecord,
    Kind.TOMBSTONE: TombstoneRecord,
    Kind.FLAG_SET: FlagSetRecord,
    Kind.FLAG_CLEAR: FlagClearRecord,
    Kind.FAULT: FaultRecord,
}


def encode(message: object) -> bytes:
    """A message or record as JSON."""
    return orjson.dumps(message)


def decode(shape: type[T], payload: bytes, *, bytes_max: int = REQUEST_BYTES_MAX) -> T:
    """A request, held to the letter. An empty payload means the defaults.

    Raises:
        Refusal: `too-large`, or `bad-request` naming every field that is wrong and the fields that there are.
    """
    if len(payload) > bytes_max:
        raise Refusal(
            Code.TOO_LARGE, f"The request has {len(payload)} bytes; at most {bytes_max} are accepted."
        )
    try:
        return read_json(shape, payload or _EMPTY)
    except Mistakes as mistakes:
        known = _field_names(shape)
        there_are = f" The fields are: {', '.join(known)}." if known else " It has no fields."
        raise Refusal(Code.BAD_REQUEST, f"The request is malformed: {mistakes}.{there_are}") from None


def decode_reply(shape: type[T], payload: bytes) -> T:
    """An answer or an event. Fields that a newer version added are passed over.

    Raises:
        Refusal: (`internal`) it is not of that shape.
    """
    try:
        return read_json(shape, payload, unknown="ignore")
    except Mistakes as mistakes:
        raise Refusal(Code.INTERNAL, f"The answer cannot be read as {shape.__name__}: {mistakes}.") from None


def decode_record(payload: bytes) -> AnyRecord:
    """A record of the journal.

    Raises:
        Refusal: `newer-version`, or `journal-unsound` when these bytes are no record.
    """
    head = _record_head(payload)
    version, kind = head.get("version"), head.get("kind")
    if not isinstance(version, int):
        raise Refusal(Code.JOURNAL_UNSOUND, "The journal holds a record without a version.")
    if version > VERSION:
        raise Refusal(
            Code.NEWER_VERSION,
            f"The journal holds a record of version {version}; this program reads up to version {VERSION}.",
        )
    shape = _RECORDS.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise Refusal(Code.JOURNAL_UNSOUND, f"The journal holds a record of the unknown kind {kind!r}.")
    try:
        return read_json(shape, payload, unknown="ignore")
    except Mistakes as mistakes:
        raise Refusal(
            Code.JOURNAL_UNSOUND, f"The journal holds a malformed record of kind {kind}: {mistakes}."
        ) from None


def _record_head(payload: bytes) -> dict[str, object]:
    if len(payload) > RECORD_BYTES_MAX:
        raise Refusal(Code.JOURNAL_UNSOUND, f"The journal holds a record of {len(payload)} bytes.")
    try:
        head = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Refusal(
            Code.JOURNAL_UNSOUND, f"The journal holds a record that is not JSON: {error}."
        ) from None
    if not isinstance(head, dict):
        raise Refusal(Code.JOURNAL_UNSOUND, "The journal holds a record that is no JSON object.")
    return head


def _field_names(shape: object) -> tuple[str, ...]:
    return tuple(field.name for field in fields(shape)) if is_dataclass(shape) else ()
