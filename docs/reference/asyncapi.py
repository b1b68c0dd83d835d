"""The AsyncAPI document: every channel of the table, with what is sent on it, its headers and an example. One whole file."""

from typing import Any

import orjson

from docs.reference.examples import examples
from docs.reference.schemas import RECORDS, Schema, message_types, schema_of
from shared.bus.micro import ERROR_CODE_HEADER, ERROR_HEADER
from shared.messages.channels import CHANNELS, Channel, Kind
from shared.messages.codec import encode
from shared.messages.control import ErrorReply
from shared.migration.names import NAME_RULE
from shared.migration.records import VERSION

Document = dict[str, Any]

_INFO = """\
What Cutover tells, and what it can be asked, over NATS. Everything is JSON. Events and the requests of Cutover's own
programs carry CloudEvents headers (binary mode); a request that is sent by hand needs none, and an empty payload means the
defaults. Fields are only ever added: whoever reads passes over what he does not know. Channels tagged `internal` are between
the services; they may be watched, and change without notice."""
_TAGS = {
    Kind.EVENT: {"name": "event", "description": "told to whoever listens"},
    Kind.COMMAND: {"name": "command", "description": "for operators and their programs"},
    Kind.INTERNAL: {"name": "internal", "description": "between the services"},
}
_PARAMETERS = {
    "migration": {"description": f"The name of a migration: {NAME_RULE}."},
    "host": {"description": f"The name of a host: {NAME_RULE}."},
}
REPLIES = "replies"


def document() -> Document:
    """The whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Cutover", "version": f"{VERSION}.0.0", "description": _INFO},
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "The server of `cutover up`, or any NATS server from 2.15 on with JetStream",
            }
        },
        "channels": {channel.name: _channel(channel) for channel in CHANNELS} | {REPLIES: _replies()},
        "operations": {channel.name: _operation(channel) for channel in CHANNELS},
        "components": {"schemas": _schemas(), "parameters": _PARAMETERS},
    }


def headers_of(channel: Channel, shape: type) -> Schema:
    """The headers of one message. Those of a request may be left out; none may be another."""
    topic = f"journal.{_kind_of(shape)}" if shape in RECORDS else channel.topic
    version = VERSION if shape in RECORDS else 1
    known: Schema = {
        "ce-specversion": {"const": "1.0"},
        "ce-id": {"type": "string", "minLength": 1, "description": "unique among those of one source"},
        "ce-source": {"type": "string", "pattern": "^/cutover/", "description": "who tells or asks it"},
        "ce-type": {"const": f"io.cutover.{topic}.v{version}"},
        "ce-time": {"type": "string", "format": "date-time"},
        "content-type": {"const": "application/json"},
    }
    required = [] if channel.reply is not None else sorted(known)
    about: Schema = {
        "ce-subject": {"type": "string", "description": "the migration, or the host, that it is about"}
    }
    return {"type": "object", "properties": known | about, "required": required}


def reply_headers() -> Schema:
    """The headers of an error reply, by the NATS micro service protocol."""
    return {
        "type": "object",
        "properties": {
            ERROR_CODE_HEADER: {"type": "string", "description": "the same as `error.code`"},
            ERROR_HEADER: {"type": "string", "description": "the same as `error.message`, on one line"},
        },
        "required": [ERROR_CODE_HEADER, ERROR_HEADER],
    }


def example_of(shape: type) -> Any:  # noqa: ANN401 - JSON
    """An example as the wire has it."""
    return orjson.loads(encode(examples()[shape]))


def _kind_of(record: type) -> str:
    return str(schema_of(record)["properties"]["kind"]["const"])


def _channel(channel: Channel) -> Document:
    names = [part[1:-1] for part in channel.address.split(".") if part.startswith("{")]
    made: Document = {
        "address": channel.address,
        "summary": channel.summary,
        "messages": {
            shape.__name__: _message(shape, headers_of(channel, shape)) for shape in channel.carries
        },
        "tags": [_TAGS[channel.kind]],
    }
    if names:
        made["parameters"] = {name: {"$ref": f"#/components/parameters/{name}"} for name in names}
    return made


def _replies() -> Document:
    shapes = sorted(
        {each.reply for each in CHANNELS if each.reply is not None}, key=lambda each: each.__name__
    )
    messages = {shape.__name__: _message(shape, None) for shape in shapes}
    return {
        "address": None,
        "summary": "The inbox that a request names. Every request may be answered with an `ErrorReply` instead.",
        "messages": messages | {ErrorReply.__name__: _message(ErrorReply, reply_headers())},
    }


def _message(shape: type, headers: Schema | None) -> Document:
    made: Document = {
        "name": shape.__name__,
        "title": shape.__name__,
        "summary": (shape.__doc__ or "").strip().splitlines()[0],
        "payload": {"$ref": f"#/components/schemas/{shape.__name__}"},
        "examples": [{"payload": example_of(shape)}],
    }
    return made if headers is None else made | {"headers": headers}


def _operation(channel: Channel) -> Document:
    where = {"$ref": f"#/channels/{channel.name}"}
    made: Document = {
        "action": "send" if channel.reply is None else "receive",
        "channel": where,
        "summary": channel.summary,
        "tags": [_TAGS[channel.kind]],
        "messages": [
            {"$ref": f"#/channels/{channel.name}/messages/{shape.__name__}"} for shape in channel.carries
        ],
    }
    if channel.reply is None:
        return made
    answers = [channel.reply.__name__, ErrorReply.__name__]
    queue = f"cutover-{channel.service.replace('_', '-')}"
    return made | {
        "reply": {
            "channel": {"$ref": f"#/channels/{REPLIES}"},
            "messages": [{"$ref": f"#/channels/{REPLIES}/messages/{name}"} for name in answers],
        },
        "bindings": {"nats": {"queue": queue, "bindingVersion": "0.1.0"}},
    }


def _schemas() -> Document:
    """All of them by name, referring to each other. What is part of a request and of something else is as open as the latter."""
    schemas: Document = {}
    for shape in message_types():
        whole = schema_of(shape)
        whole.pop("$schema")
        for name, schema in (*whole.pop("$defs", {}).items(), (shape.__name__, whole)):
            present = schemas.setdefault(name, schema)
            if present != schema:
                present.pop("additionalProperties", None)
    return {name: _referring(schema) for name, schema in schemas.items()}


def _referring(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        if "$ref" in value:  # what stands beside a reference is not looked at by older dialects
            return {"$ref": value["$ref"].replace("#/$defs/", "#/components/schemas/")}
        return {key: _referring(each) for key, each in value.items()}
    return [_referring(each) for each in value] if isinstance(value, list) else value
