"""The reference of events and commands is the code's: what is in the tree is what would be generated, and keeps its promises."""

import copy
import json
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from docs.reference.asyncapi import document, example_of
from docs.reference.compatibility import breaches
from docs.reference.files import SCHEMAS, broken_promises, files
from docs.reference.schemas import message_types, schema_of
from services.fault_recording.service import FaultRecording
from services.startup.service import Startup
from services.state_control.service import StateControl
from services.write_cloning.endpoints import Waiting, endpoints_of
from shared.bus.interface import Endpoint
from shared.messages.channels import CHANNELS, Kind, channel_of
from shared.messages.control import BYTES_PER_S_MAX, PlainRequest, SetupRequest, ThrottleRequest
from shared.messages.status import HostView
from shared.migration.records import StateRecord, Subjects
from tests.support.checking import mistakes, validator_of
from tests.support.records import ONE_OF_EACH


def test_what_is_in_the_tree_is_what_the_code_says_now() -> None:
    stale = [str(path) for path, text in files().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `make docs`"


def test_there_is_a_schema_of_every_message_and_no_other() -> None:
    assert {file.stem for file in SCHEMAS.iterdir()} == {shape.__name__ for shape in message_types()}


def test_the_code_keeps_what_the_schemas_promise() -> None:
    assert broken_promises() == []


@pytest.mark.parametrize("shape", message_types(), ids=lambda shape: shape.__name__)
def test_every_example_is_valid(shape: type) -> None:
    assert mistakes(validator_of(shape.__name__), example_of(shape)) == []


# ---------------------------------------------------------------------------------------------------- the channels


def served() -> dict[str, list[Endpoint]]:
    """What each service answers."""
    anything = Mock()
    startup = Startup(journal=anything, requests=anything, discovery=anything, clock=anything)
    control = StateControl(
        journal=anything,
        requests=anything,
        discovery=anything,
        durability=anything,
        clock=anything,
        new_id=anything,
    )
    return {
        "fault_recording": list(FaultRecording(anything, anything, anything).endpoints()),
        "state_control": list(control.endpoints()),
        "startup": list(startup.endpoints()),
        "write_cloning": [*endpoints_of(anything, "h1"), Waiting("h1", 1).endpoint()],
    }


def test_the_channels_are_what_the_services_answer() -> None:
    documented = {
        (channel.service, channel.address.replace("{host}", "h1" if channel.service == "write_cloning" else "*")
         .replace("{migration}", "*"), channel.carries[0])
        for channel in CHANNELS
        if channel.reply is not None
    }  # fmt: skip
    answered = {
        (name, each.subject, each.request) for name, endpoints in served().items() for each in endpoints
    }
    assert documented == answered


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: record.kind)
def test_every_record_stands_on_a_channel_that_carries_it(record: Any) -> None:
    found = channel_of(Subjects.of(record))
    assert found is not None
    channel, names = found
    assert type(record) in channel.carries
    assert names == {"migration": record.migration}


def test_a_subject_belongs_to_one_channel() -> None:
    for channel in CHANNELS:
        subject = channel.address.replace("{migration}", "status").replace("{host}", "repair")
        assert [each.name for each in CHANNELS if each.match(subject) is not None] == [channel.name]
    assert channel_of("cutover.journal.vol1") is None
    assert channel_of("cutover.nothing.vol1") is None


def test_the_document_has_every_channel_with_its_messages() -> None:
    channels = document()["channels"]
    for channel in CHANNELS:
        told = channels[channel.name]
        assert told["address"] == channel.address
        assert set(told["messages"]) == {shape.__name__ for shape in channel.carries}
        assert [tag["name"] for tag in told["tags"]] == [channel.kind]
    internal = [
        channel for channel in CHANNELS if channel.address.startswith(("cutover.host.", "cutover.record."))
    ]
    assert all(channel.kind is Kind.INTERNAL for channel in internal)


# ---------------------------------------------------------------------------------------------------- the promises


def changed(change: Callable[[dict[str, Any]], object], shape: type = StateRecord) -> list[str]:
    """What is said of a schema after a change."""
    before = schema_of(shape)
    now = copy.deepcopy(before)
    change(now)
    return list(breaches(shape.__name__, before, now))


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: None,
        lambda schema: schema["properties"].update(mood={"type": "string", "default": ""}),
        lambda schema: schema["$defs"]["DeviceIdentity"]["properties"].update(
            wwn={"type": "string", "default": ""}
        ),
        lambda schema: schema["$defs"]["State"]["enum"].append("parked"),
        lambda schema: schema.update(description="in other words"),
        lambda schema: schema["properties"].update(version={"const": 2}),
        lambda schema: schema["properties"]["run"].update(description="counts"),
    ],
    ids=["nothing", "field", "field deep inside", "word", "description", "version", "comment"],
)
def test_what_is_added_breaks_nothing(change: Callable[[dict[str, Any]], object]) -> None:
    assert changed(change) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda schema: schema["properties"].pop("trigger"), "StateRecord.trigger: the field is gone"),
        (lambda schema: schema["properties"].update(run={"type": "string"}), "StateRecord.run: type was 'integer'"),
        (lambda schema: schema["properties"]["detail"].update(default="x"), "StateRecord.detail: default was ''"),
        (
            lambda schema: schema["properties"]["recorded_at"].pop("format"),
            "StateRecord.recorded_at: format was 'date-time'",
        ),
        (
            lambda schema: (schema["properties"].update(mood={"type": "string"}), schema["required"].append("mood")),
            "StateRecord.mood: the field is new and has no default",
        ),
        (lambda schema: schema["required"].append("detail"), "StateRecord.detail: the field has lost its default"),
        (lambda schema: schema["required"].remove("state"), "StateRecord.state: the field was always there"),
        (lambda schema: schema["$defs"]["State"]["enum"].remove("setup"), "StateRecord.state: the value 'setup' is gone"),
        (
            lambda schema: schema["$defs"]["DeviceIdentity"]["properties"].pop("token"),
            "StateRecord.devices.source.token: the field is gone",
        ),
        (
            lambda schema: schema["properties"].update(authority={"anyOf": [{"$ref": "#/$defs/Side"}, {"type": "null"}]}),
            "StateRecord.authority: anyOf was None",
        ),
    ],
    ids=lambda value: value.partition(":")[0] + str(len(value)) if isinstance(value, str) else "",
)  # fmt: skip
def test_what_others_rely_on_cannot_go_unnoticed(
    change: Callable[[dict[str, Any]], object], said: str
) -> None:
    told = changed(change)
    assert any(each.startswith(said) for each in told), told
    assert all(len(each.split(". ")) > 1 for each in told), "it says what to do"


def test_a_message_that_is_gone_is_told_of() -> None:
    (told,) = breaches("StateRecord", schema_of(StateRecord), None)
    assert told.startswith("StateRecord: the message is gone.")


def test_a_field_deep_in_a_list_is_looked_at_too() -> None:
    told = changed(lambda schema: schema["$defs"]["ConnectionView"]["properties"].pop("peer"), HostView)
    assert told[0].startswith("HostView.connections[].peer: the field is gone")


def test_what_a_list_holds_may_grow() -> None:
    def grow(schema: dict[str, Any]) -> None:
        schema["$defs"]["ConnectionView"]["properties"].update(mood={"type": "string", "default": ""})

    assert changed(grow, HostView) == []


def test_a_request_allows_no_field_that_there_is_not_and_an_event_does() -> None:
    assert mistakes(validator_of("SetupRequest"), {"source": "/a", "target": "/b", "mood": "fine"})
    assert mistakes(validator_of("PlainRequest"), {"operation_id": 7})
    assert mistakes(validator_of("PlainRequest"), {}) == []
    assert mistakes(validator_of("HostView"), example_of(HostView) | {"mood": "fine"}) == []
    assert schema_of(SetupRequest)["additionalProperties"] is False
    assert "additionalProperties" not in schema_of(HostView)
    assert schema_of(PlainRequest)["properties"]["operation_id"]["default"] is None


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"kind": "fault"}, {"recorded_at": "yesterday"}, {"state": "lost"}]
)
def test_a_record_that_is_none_is_not_valid(change: dict[str, object]) -> None:
    assert mistakes(validator_of("StateRecord"), example_of(StateRecord) | change)


def test_the_page_has_valid_json_in_its_examples() -> None:
    page = next(text for path, text in files().items() if path.name == "EVENTS.md")
    blocks = [block.split("```")[0] for block in page.split("```json\n")[1:]]
    assert len(blocks) == 8
    assert all(isinstance(json.loads(block), dict) for block in blocks)


def test_a_throttle_is_bounded_in_its_schema_as_in_its_service() -> None:
    """A program that was made from the schema sent what is refused."""
    whole, none = schema_of(ThrottleRequest)["properties"]["bytes_per_s"]["anyOf"]
    assert (whole["minimum"], whole["maximum"], none) == (1, BYTES_PER_S_MAX, {"type": "null"})
