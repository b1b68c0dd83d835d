"""What the journal's records tell in plain words."""

from typing import get_args

import pytest

from services.monitoring.picture import Picture
from services.monitoring.stories import Telling, Tone, story_of
from services.monitoring.times import duration_words, seconds_of
from shared.migration.devices import Side
from shared.migration.records import AnyRecord
from shared.migration.states import State
from shared.migration.table import TRANSITIONS, Trigger
from shared.migration.verdicts import VERDICTS, Label, Remedy
from tests.support.records import ONE_OF_EACH, fault_record, state_record, tombstone


def test_every_kind_of_record_has_a_story() -> None:
    assert {type(record) for record in ONE_OF_EACH} == set(get_args(AnyRecord))
    for record in ONE_OF_EACH:
        story = story_of(record)
        assert story.title
        assert (story.migration, story.at) == (record.migration, record.recorded_at)


@pytest.mark.parametrize(
    "trigger", sorted({str(row.trigger) for row in TRANSITIONS if row.after is not None})
)
def test_every_transition_has_words_of_its_own(trigger: str) -> None:
    story = story_of(state_record(trigger=trigger, state=State.SYNCING))
    assert not story.title.startswith("Now ")
    assert story.trigger == trigger


def test_every_verdict_that_records_a_transition_has_words_of_its_own() -> None:
    for verdict in VERDICTS:
        if Remedy.ERROR_TRANSITION in verdict.remedies:
            story = story_of(state_record(trigger=verdict.label, state=State.SETUP))
            assert story.tone is Tone.TROUBLE
            assert not story.title.startswith("Now ")


def test_every_verdict_that_records_nothing_else_has_words_for_the_opening() -> None:
    for verdict in VERDICTS:
        if verdict.admit and not verdict.remedies:
            assert story_of(state_record(trigger=verdict.label)).title == "Opened again"


_BACK = [
    (Trigger.ABORT, State.SETUP),
    (Trigger.TARGET_FAULT, State.SETUP),
    (Label.FAULTED, State.SETUP),
    (Label.UNCLEAN, State.SETUP),
]


@pytest.mark.parametrize(("trigger", "state"), _BACK)
def test_source_that_has_failed_itself_is_not_told_as_the_way_on(trigger: str, state: State) -> None:
    """«The application goes on with the source, which has everything» was told of one whose every request failed."""
    records = (
        state_record(trigger="sync", state=State.SYNCING),
        fault_record(side=Side.SOURCE),
        state_record(trigger=trigger, state=state),
        state_record(trigger="sync", state=State.SYNCING, attempt=2),
        state_record(trigger=trigger, state=state, attempt=2),
    )
    telling = Telling()
    _, _, failed, _, well = (telling.tell(record).text for record in records)
    picture = Picture("e")
    for record in records:
        picture.told_record(record)
    past = Picture("e")
    past.told_past(records)
    for told in (picture, past):
        stories = [event.story.text for event in told.events if event.story.trigger == trigger]
        assert ["the application may get errors" in text for text in stories] == [True, False]
    assert "the application may get errors" in failed
    assert "the application may get errors" not in well


def test_migration_that_was_given_up_is_not_told_as_one_that_came_to_its_end() -> None:
    given_up, cleaned_up = story_of(tombstone(given_up=True)), story_of(tombstone())
    assert (given_up.title, cleaned_up.title) == ("Given up", "Cleaned up")
    assert "keeps the data" not in given_up.text


def test_state_that_a_newer_version_explains_otherwise_is_told_all_the_same() -> None:
    story = story_of(state_record(trigger="teleported", state=State.COMMITTED, detail="by a new way"))
    assert (story.title, story.text, story.state) == ("Now committed", "By a new way.", State.COMMITTED)


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"operation": "write", "cause": "EIO"}, "The target failed: writing, EIO"),
        ({"operation": "flush", "cause": "timeout"}, "The target did not answer in time: a flush"),
        ({"operation": "verify", "cause": "differs"}, "Source and target differ"),
        ({"operation": "shutdown", "cause": "unclean-shutdown"}, "The stop was not clean"),
        ({"operation": "open", "cause": "device-missing"}, "The target could not be opened: device-missing"),
        ({"operation": "adopt", "cause": "adopted"}, "The target counts for nothing, by an operator's word"),
        ({"operation": "read", "cause": "EIO", "side": Side.SOURCE}, "The source failed: reading, EIO"),
    ],
)
def test_fault_is_told_by_what_failed(fields: dict[str, object], title: str) -> None:
    story = story_of(fault_record(offset=4096, length=512, **fields))  # type: ignore[arg-type]
    assert story.title == title
    assert story.tone is Tone.TROUBLE


def test_story_says_how_long_the_state_before_had_lasted() -> None:
    telling = Telling()
    telling.tell(state_record(state=State.SETUP, recorded_at="2026-01-31T12:00:00.000000Z"))
    telling.tell(fault_record(recorded_at="2026-01-31T12:05:00.000000Z"))
    story = telling.tell(
        state_record(state=State.SYNCING, trigger="sync", recorded_at="2026-01-31T14:10:00.000000Z")
    )
    assert story.text.endswith("It had been in setup for 2 h 10 min.")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (180000, "2 d 2 h"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


def test_time_that_is_none_is_no_reason_to_fail() -> None:
    assert seconds_of("yesterday") == 0.0
    assert seconds_of("1970-01-01T00:01:00.500000Z") == 60.5
