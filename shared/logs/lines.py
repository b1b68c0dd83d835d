"""From a log record to a line: as text for people, or as a JSON object for programs. Both say the same.

Whatever a record holds, there is a line: a message that cannot be made up is told of instead.
"""

import logging
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import orjson

from shared.logs.about import Process, Whereabouts
from shared.plain import plain, shortened

Fields = dict[str, object]
Line = Callable[[logging.LogRecord, Process], str]

MESSAGE_CHARACTERS_MAX = 8192
_TRACEBACK_INDENT = "    | "  # so that no line of it looks like one of the log


def text_line(record: logging.LogRecord, process: Process) -> str:
    """`TIME LEVEL SERVICE host=… run=… migration=… attempt=…: MESSAGE`, and the traceback below it."""
    fields = fields_of(record, process)
    known = " ".join(
        f"{key}={fields[key]}" for key in ("host", "run", "migration", "attempt") if key in fields
    )
    where = f"{fields['service']} {known}".rstrip()
    first = f"{fields['time']} {record.levelname:<7} {where}: {fields['message']}"
    error = fields.get("error")
    if not isinstance(error, dict):
        return first
    below = str(error["traceback"]).rstrip().splitlines()
    return "\n".join([first, *(f"{_TRACEBACK_INDENT}{plain(line)}" for line in below)])


def json_line(record: logging.LogRecord, process: Process) -> str:
    """One object: time, level, service, message; host, run, migration, attempt and error where there are such."""
    return orjson.dumps(fields_of(record, process)).decode()


LINES: Mapping[str, Line] = {"text": text_line, "json": json_line}


def fields_of(record: logging.LogRecord, process: Process) -> Fields:
    """Everything that is told of a record. What is not known is left out."""
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    fields: Fields = {
        "time": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "service": process.service,
    }
    fields |= _context(record, process)
    fields["message"] = _message(record)
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = _error(record.exc_info[1])
    return fields


def _context(record: logging.LogRecord, process: Process) -> Fields:
    migration = getattr(record, "migration", "")
    known = process.whereabouts(migration) if migration and process.whereabouts else Whereabouts()
    attempt = getattr(record, "attempt", None)
    context: Fields = {
        "host": plain(shortened(getattr(record, "host", "") or known.host or process.host)),
        "run": process.run,
        "migration": plain(shortened(migration)),
        "attempt": known.attempt if attempt is None else attempt,
    }
    return {key: value for key, value in context.items() if value not in {"", None}}


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the arguments, the line says so
        text = f"{record.msg} (its details cannot be shown: {type(error).__name__})"
    if len(text) > MESSAGE_CHARACTERS_MAX:
        text = f"{text[:MESSAGE_CHARACTERS_MAX]}… ({len(text)} characters)"
    return plain(text)


def _error(error: BaseException) -> Fields:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "message": plain(str(error)[:MESSAGE_CHARACTERS_MAX]),
        "traceback": "\n".join(plain(line) for line in lines),
    }
