"""Headers by which tools that know nothing of Cutover can route its messages."""

from dataclasses import replace

import pytest

from shared.messages.cloudevents import event_headers, record_headers
from shared.migration.records import AnyRecord
from tests.support.records import AT, ONE_OF_EACH, UUID, state_record

REQUIRED = {"ce-specversion", "ce-id", "ce-source", "ce-type"}


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: record.kind)
def test_a_record_is_a_whole_event(record: AnyRecord) -> None:
    headers = record_headers(record)
    assert set(headers) >= REQUIRED
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-id"] == f"{UUID}/{record.index}"
    assert headers["ce-type"] == f"io.cutover.journal.{record.kind}.v1"
    assert headers["ce-subject"] == record.migration
    assert headers["ce-time"] == AT
    assert headers["content-type"] == "application/json"


def test_an_event_tells_what_it_is_of() -> None:
    headers = event_headers(
        identifier="1", source="/cutover/host", nats_subject="cutover.progress.vol1", at=AT
    )
    assert headers["ce-type"] == "io.cutover.progress.v1"
    assert headers["ce-subject"] == "vol1"


def test_an_event_about_nothing_in_particular_has_no_subject() -> None:
    headers = event_headers(identifier="1", source="/cutover/host", nats_subject="cutover.notice", at=AT)
    assert "ce-subject" not in headers


def test_no_value_ends_its_header_and_begins_another() -> None:
    """The UUID of a record is the host's, which only has to be one string."""
    hostile = replace(state_record(), uuid="a\r\nNats-Rollup: all\r\n\r\n", host='h 1"%\x1b«')
    headers = record_headers(hostile)
    assert headers["ce-id"] == f"a%0D%0ANats-Rollup:%20all%0D%0A%0D%0A/{hostile.index}"
    assert headers["ce-source"] == "/cutover/hosts/h%201%22%25%1B%C2%AB"
    assert all(0x21 <= ord(each) <= 0x7E for value in headers.values() for each in value)
