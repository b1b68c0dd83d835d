"""The reference of events and commands against the wire: each message of a life in which everything happens, headers included."""

import json
from collections.abc import Iterator
from functools import cache

from jsonschema.protocols import Validator
from nats.aio.msg import Msg

from docs.reference.asyncapi import headers_of, reply_headers
from docs.reference.schemas import RECORDS
from shared.messages.channels import CHANNELS, Channel, channel_of
from tests.acceptance.system.everything import Lived
from tests.support.checking import mistakes, validator, validator_of

# What that life does not have, with the reason: nothing.
NOT_SEEN: frozenset[tuple[str, str]] = frozenset()

BY_NAME = {shape.__name__: shape for channel in CHANNELS for shape in channel.carries}
BY_KIND = {shape.__name__.removesuffix("Record").lower(): shape for shape in RECORDS}


@cache
def headers_validator(channel: Channel, shape: type) -> Validator:
    return validator(headers_of(channel, shape))


def shape_of(channel: Channel, message: Msg) -> type:
    """What a message has to be: the kind of a record tells, elsewhere the channel."""
    if len(channel.carries) == 1:
        return channel.carries[0]
    kind = json.loads(message.data)["kind"].replace("-", "")
    return BY_KIND[kind]


def told(lived: Lived) -> Iterator[tuple[Channel, type, Msg]]:
    """Every message on a subject of Cutover's."""
    for message in lived.messages:
        if message.subject.startswith("cutover."):
            found = channel_of(message.subject)
            assert found is not None, f"{message.subject} is no channel"
            yield found[0], shape_of(found[0], message), message


def test_every_message_is_what_its_channel_carries(lived: Lived) -> None:
    for channel, shape, message in told(lived):
        payload = json.loads(message.data or b"{}")
        assert shape in channel.carries, f"{shape} on {message.subject}"
        assert mistakes(validator_of(shape.__name__), payload) == [], f"{message.subject}: {payload}"


def test_every_message_has_the_headers_of_its_channel(lived: Lived) -> None:
    for channel, shape, message in told(lived):
        headers = dict(message.headers or {})
        assert mistakes(headers_validator(channel, shape), headers) == [], f"{message.subject}: {headers}"
        found = channel_of(message.subject)
        if headers and found is not None:
            names = found[1]
            assert headers.get("ce-subject", "") == names.get("migration", names.get("host", ""))


def test_no_two_events_have_one_id(lived: Lived) -> None:
    """But records that are the same record: the journal that was made anew begins its count again."""
    ids = [
        (headers["ce-source"], headers["ce-id"])
        for channel, _shape, message in told(lived)
        if not channel.name.startswith("journal") and (headers := message.headers or {})
    ]
    assert len(ids) == len(set(ids))


def test_requests_of_cutovers_own_programs_have_headers_and_those_by_hand_need_none(lived: Lived) -> None:
    by_hand = {channel.name for channel, _shape, message in told(lived) if not message.headers}
    assert {name for name in by_hand if not name.startswith("control-")} <= {
        "host-status-all"
    }  # a test's own


def test_every_reply_is_the_one_of_its_channel_or_an_error(lived: Lived) -> None:
    of_error = validator(reply_headers())
    waiting: dict[str, Channel] = {}
    replied: set[str] = set()
    for message in lived.messages:
        found = channel_of(message.subject)
        if found is not None and found[0].reply is not None and message.reply:
            waiting[message.reply] = found[0]
        elif (
            (channel := waiting.get(message.subject)) is not None
            and channel.reply is not None
            and message.data
        ):
            payload = json.loads(message.data)
            headers = dict(message.headers or {})
            name = "ErrorReply" if "error" in payload else channel.reply.__name__
            assert mistakes(validator_of(name), payload) == [], f"{channel.name}: {payload}"
            assert not headers or mistakes(of_error, headers) == []
            assert bool(headers) == (name == "ErrorReply")
            replied |= {channel.name, name}
    assert {channel.name for channel in CHANNELS if channel.reply is not None} <= replied
    assert "ErrorReply" in replied


def test_everything_that_is_documented_was_seen(lived: Lived) -> None:
    documented = {(channel.name, shape.__name__) for channel in CHANNELS for shape in channel.carries}
    seen = {(channel.name, shape.__name__) for channel, shape, _message in told(lived)}
    assert documented - seen == NOT_SEEN
