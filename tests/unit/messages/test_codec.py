"""Requests are held to the letter; records and replies are read by later versions; nothing is guessed."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from shared.messages.codec import (
    RECORD_BYTES_MAX,
    REQUEST_BYTES_MAX,
    decode,
    decode_record,
    decode_reply,
    encode,
)
from shared.messages.control import CommandReply, PlainRequest, SetupRequest, ThrottleRequest
from shared.messages.recording import DecisionRequest, Origin
from shared.messages.status import HostView
from shared.migration.devices import Side
from shared.migration.records import VERSION, AnyRecord
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support import staged
from tests.support.records import AT, DEVICES, ONE_OF_EACH, UUID, flag_set

ORIGIN = Origin(migration="vol1", uuid=UUID, attempt=1, host="h1", run=1, decision=1, operation_id="o")


def refused(shape: type, payload: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decode(shape, payload)
    return caught.value


@pytest.mark.parametrize("payload", [b"", b"{}"])
def test_nothing_means_the_defaults(payload: bytes) -> None:
    assert decode(PlainRequest, payload) == PlainRequest()


def test_nothing_is_refused_where_something_is_required() -> None:
    refusal = refused(SetupRequest, b"")
    assert refusal.code is Code.BAD_REQUEST
    assert "source: required" in refusal.message
    assert "target: required" in refusal.message


@pytest.mark.parametrize("payload", [b"{", b"\xff\xfe", b"{'a': 1}", b'{"bytes_per_s": NaNa}', b"[" * 5000])
def test_what_is_no_json_is_refused(payload: bytes) -> None:
    refusal = refused(ThrottleRequest, payload)
    assert refusal.code is Code.BAD_REQUEST
    assert "not JSON" in refusal.message


@pytest.mark.parametrize("payload", [b"[]", b"null", b"7", b'"sync"'])
def test_what_is_no_object_is_refused(payload: bytes) -> None:
    assert "must be an object" in refused(ThrottleRequest, payload).message


def test_unknown_fields_are_refused_by_name_and_the_known_ones_told() -> None:
    refusal = refused(ThrottleRequest, b'{"bytes_per_second": 7}')
    assert "bytes_per_second: unknown field" in refusal.message
    assert "bytes_per_s, operation_id" in refusal.message


@pytest.mark.parametrize("value", [b'"7"', b"7.5", b"true", b"[7]", b"9" * 5000])
def test_wrong_types_are_refused_by_name(value: bytes) -> None:
    assert refused(ThrottleRequest, b'{"bytes_per_s": ' + value + b"}").code is Code.BAD_REQUEST


def test_every_mistake_is_named_at_once() -> None:
    message = refused(SetupRequest, b'{"source": 1, "overwrite_target": "yes", "x": 0}').message
    assert all(key in message for key in ("source:", "target:", "overwrite_target:", "x:"))


def test_a_mistake_deep_inside_is_named_by_its_path() -> None:
    request = orjson.loads(
        encode(DecisionRequest(origin=ORIGIN, state=None, authority=Side.SOURCE, trigger="t"))
    )
    request["origin"]["run"] = "one"
    assert "origin.run:" in refused(DecisionRequest, orjson.dumps(request)).message


def test_oversized_requests_are_refused_before_they_are_read() -> None:
    assert refused(PlainRequest, b" " * (REQUEST_BYTES_MAX + 1)).code is Code.TOO_LARGE
    assert decode(PlainRequest, b"{}" + b" " * (REQUEST_BYTES_MAX - 2)) == PlainRequest()


def test_enums_and_nested_dataclasses_survive_the_wire() -> None:
    request = DecisionRequest(
        origin=ORIGIN, state=State.SYNCING, authority=Side.TARGET, trigger="commit", devices=DEVICES
    )
    decoded = decode(DecisionRequest, encode(request))
    assert decoded == request
    assert isinstance(decoded.state, State)


def test_a_reply_of_a_newer_version_is_read_without_what_is_new() -> None:
    reply = CommandReply(name="v", uuid=UUID, state=None, authority=Side.SOURCE, attempt=0, decision=1)
    newer = orjson.dumps({**orjson.loads(encode(reply)), "mood": "fine"})
    assert decode_reply(CommandReply, newer) == reply


def test_a_reply_of_another_shape_is_an_internal_error() -> None:
    with pytest.raises(Refusal) as caught:
        decode_reply(CommandReply, b"{}")
    assert caught.value.code is Code.INTERNAL


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: record.kind)
def test_every_kind_of_record_survives_the_journal(record: AnyRecord) -> None:
    placed = replace(record, index=3, previous_digest="d")
    decoded = decode_record(encode(placed))
    assert decoded == placed
    assert type(decoded) is type(placed)


def test_a_record_with_a_field_that_is_new_is_read() -> None:
    newer = orjson.dumps({**orjson.loads(encode(flag_set())), "note": "x"})
    assert decode_record(newer) == flag_set()


def test_a_record_of_a_newer_version_is_refused() -> None:
    newer = orjson.dumps({**orjson.loads(encode(flag_set())), "version": VERSION + 1, "kind": "unheard-of"})
    with pytest.raises(Refusal) as caught:
        decode_record(newer)
    assert caught.value.code is Code.NEWER_VERSION


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"garbage",
        b"[]",
        b"{}",
        b'{"kind": "unheard-of", "version": 1}',
        b'{"kind": 7, "version": 1}',
        b'{"kind": "flag-set", "version": 1}',
        encode(flag_set()).replace(AT.encode(), b"").replace(b'"run":1', b'"run":"1"'),
        b" " * (RECORD_BYTES_MAX + 1),
    ],
)
def test_what_is_no_record_makes_the_journal_unsound(payload: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        decode_record(payload)
    assert caught.value.code is Code.JOURNAL_UNSOUND


def numbers(told: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the numbers of a JSON document are."""
    if isinstance(told, dict | list):
        for key, part in told.items() if isinstance(told, dict) else enumerate(told):
            yield from numbers(part, (*path, key))
    elif isinstance(told, int | float) and not isinstance(told, bool):
        yield path


def with_number(told: Any, path: tuple[str | int, ...], number: str) -> bytes:
    """The document with another number there; `number` is text, because no Python value is every number of JSON."""
    copied = orjson.loads(orjson.dumps(told))
    part = copied
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = "HERE"
    return orjson.dumps(copied).replace(b'"HERE"', number.encode())


@pytest.mark.parametrize("number", ["1" + "0" * 30, str(2**63), "-1" + "0" * 30, "1e999", "NaN", "-Infinity"])
@pytest.mark.parametrize("message", [staged.view(), staged.status(staged.view()), *ONE_OF_EACH])
def test_number_that_is_beyond_what_is_possible_is_refused_wherever_it_stands(
    message: object, number: str
) -> None:
    """One of 10**30 in a host's progress once took the page from everybody: nobody could be told it."""
    told = orjson.loads(encode(message))
    places = [path for path in numbers(told) if path != ("version",)]
    assert places
    for path in places:
        with pytest.raises(Refusal, match=re.escape(".".join(map(str, path)))):
            decode_reply(type(message), with_number(told, path, number))


def test_negative_size_is_refused_and_the_largest_is_read() -> None:
    told = orjson.loads(encode(staged.view()))
    with pytest.raises(Refusal, match="synced_bytes"):
        decode_reply(HostView, with_number(told, ("synced_bytes",), "-1"))
    read = decode_reply(HostView, with_number(told, ("synced_bytes",), str(2**63 - 1)))
    assert read.synced_bytes == 2**63 - 1
