"""Headers by which tools that know nothing of Cutover can route its messages."""

import pytest

from shared.messages.cloudevents import event_headers, record_headers
from shared.migration.records import AnyRecord
from tests.support.records import AT, ONE_OF_EACH, UUID

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
