"""What the journal's records tell, as short stories in plain words, each with its time. Pure.

A record says what was decided; a story says what that means for whoever has data there. Only what a person would want to know
is told, so records that belong together make stories that can be read one after the other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from services.monitoring.sizes import size_words
from services.monitoring.times import duration_words, seconds_of
from shared.migration.devices import Side
from shared.migration.records import (
    ADOPTED,
    AnyRecord,
    FaultRecord,
    FlagClearRecord,
    FlagSetRecord,
    IntentRecord,
    RepairRecord,
    StateRecord,
    TombstoneRecord,
)
from shared.migration.states import State
from shared.migration.table import Trigger
from shared.migration.verdicts import Label


class Tone(StrEnum):
    """How a story is to be taken; the page has a shape and a colour for each."""

    STEP = "step"  # the migration has moved on
    NOTE = "note"
    CARE = "care"  # somebody should look
    TROUBLE = "trouble"  # something has failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One thing that happened. `index` is its record's place in the chain."""

    migration: str
    index: int
    at: str  # RFC 3339, UTC: when it was recorded
    tone: Tone
    title: str
    text: str = ""
    state: State | None = None  # that it led to, where it led anywhere
    trigger: str = ""


class Telling:
    """Tells the records of one migration one after the other; a state's story says how long the one before had lasted."""

    def __init__(self) -> None:
        """Begin before the first record."""
        self._state: State | None = None
        self._began = ""
        self._source_failed_in: int | None = None  # which attempt

    def tell(self, record: AnyRecord) -> Story:
        """The story of the next record."""
        if is_source_fault(record):
            self._source_failed_in = record.attempt
        story = story_of(record, source_failed=record.attempt == self._source_failed_in)
        before, began = self._state, self._began
        if isinstance(record, TombstoneRecord):
            self._state = None
        elif isinstance(record, StateRecord | RepairRecord) and record.state is not before:
            self._state, self._began = record.state, record.recorded_at
        if before is None or before is self._state:
            return story
        lasted = duration_words(seconds_of(record.recorded_at) - seconds_of(began))
        return replace(story, text=f"{story.text} It had been in {before} for {lasted}.".strip())


def is_source_fault(record: AnyRecord) -> bool:
    """Whether it tells of a failure of the source's device."""
    return isinstance(record, FaultRecord) and record.side is Side.SOURCE


def story_of(record: AnyRecord, *, source_failed: bool = False) -> Story:
    """What one record tells. `source_failed` says that a record before it tells of a fault of the source in the attempt."""
    match record:
        case StateRecord():
            tone, title, text = _state_words(record)
            if source_failed and record.trigger in _BACK_ON_THE_SOURCE:
                text = f"{text} It has failed in this attempt as well: the application may get errors."
            return _story(record, tone, title, text, state=record.state, trigger=record.trigger)
        case FaultRecord():
            return _story(record, Tone.TROUBLE, _fault_title(record), _fault_text(record))
        case FlagSetRecord():
            text = "From here on a stop that is not clean means that the target may miss writes."
            return _story(record, Tone.NOTE, "Error flag set", text)
        case FlagClearRecord():
            return _story(record, Tone.NOTE, "Error flag clear", "Nothing is at stake any more.")
        case IntentRecord():
            return _story(record, Tone.NOTE, "Commit asked for", "Whether the host does it is recorded next.")
        case RepairRecord():
            text = f"{_sentence(record.reason)} It goes on from what the host's witness holds."
            return _story(record, Tone.CARE, "Journal repaired", text, state=record.state)
        case TombstoneRecord() if record.given_up:
            text = "The operator forgot it while its volume was closed. No device was touched: each keeps what it held."
            return _story(record, Tone.CARE, "Given up", text)
        case TombstoneRecord():
            kept = Side.TARGET if record.state is State.COMMITTED else Side.SOURCE
            text = f"The volume is closed and the name is free. The {kept} keeps the data."
            return _story(record, Tone.STEP, "Cleaned up", text)


def _state_words(record: StateRecord) -> tuple[Tone, str, str]:
    tell = _STATES.get(record.trigger)
    if tell is None:
        return Tone.STEP, f"Now {record.state}", _sentence(record.detail)
    tone, title, text = tell(record)
    return tone, title, text


def _said(tone: Tone, title: str, text: str) -> Callable[[StateRecord], tuple[Tone, str, str]]:
    return lambda _record: (tone, title, text)


def _set_up(record: StateRecord) -> tuple[Tone, str, str]:
    if record.devices is None:
        return Tone.STEP, "Set up", "The volume reads and writes the source."
    source, target = record.devices.source, record.devices.target
    moved = f"{size_words(source.size_bytes)} of {source.name} are to move to {target.name}."
    return Tone.STEP, "Set up", f"{moved} The volume reads and writes the source."


def _began(record: StateRecord) -> tuple[Tone, str, str]:
    text = "Every write goes to both devices from here on, and the rest is being copied."
    return Tone.STEP, f"Attempt {record.attempt} began", text


def _adopted(record: StateRecord) -> tuple[Tone, str, str]:
    return Tone.CARE, f"Opened on the {record.authority} by an operator's word", _sentence(record.detail)


_ON_TARGET = _said(Tone.STEP, "Opened again", "Its host was started again. It has the target alone.")
_STATES: Mapping[str, Callable[[StateRecord], tuple[Tone, str, str]]] = {
    Trigger.SETUP: _set_up,
    Trigger.SYNC: _began,
    Trigger.COPIED: _said(Tone.STEP, "Copied", "Both devices hold the same, and every write goes to both."),
    Trigger.SELECT_TARGET: _said(
        Tone.STEP, "Reads moved to the target", "Writes still go to both; select-source would lead back."
    ),
    Trigger.SELECT_SOURCE: _said(Tone.STEP, "Reads moved back to the source", "Writes still go to both."),
    Trigger.COMMIT: _said(
        Tone.STEP, "Committed", "The target has taken over for good; the source gets no write any more."
    ),
    Trigger.ABORT: _said(
        Tone.CARE, "Given up by the operator", "Back on the source alone, which has every acknowledged write."
    ),
    Trigger.TARGET_FAULT: _said(
        Tone.TROUBLE,
        "Back on the source: the target has failed",
        "Reads and writes go to the source alone, which has every acknowledged write.",
    ),
    Trigger.SOURCE_FAULT: _said(
        Tone.TROUBLE,
        "On the target alone: the source has failed",
        "The target has every acknowledged write, and the application goes on with it. Commit leads out.",
    ),
    ADOPTED: _adopted,
    Label.IDLE: _said(Tone.STEP, "Opened again", "Its host was started again."),
    Label.DONE: _said(Tone.STEP, "Opened again", "Its host was started again."),
    Label.ON_TARGET: _ON_TARGET,
    Label.ON_TARGET_FLAGGED: _ON_TARGET,
    Label.RESUME: _said(Tone.STEP, "Goes on after a clean stop", "Writes go to both devices again."),
    Label.FAULTED: _said(
        Tone.TROUBLE,
        "Back on the source after a stop",
        "The target had failed before it. The source has every acknowledged write.",
    ),
    Label.UNCLEAN: _said(
        Tone.TROUBLE,
        "Back on the source after a crash",
        "The stop was not clean, so the target may miss writes. The source has every acknowledged one.",
    ),
}

_BACK_ON_THE_SOURCE = frozenset({Trigger.ABORT, Trigger.TARGET_FAULT, Label.FAULTED, Label.UNCLEAN})


_OPERATIONS = {
    "write": "writing",
    "zero": "zeroing",
    "trim": "trimming",
    "read": "reading",
    "flush": "a flush",
}


def _fault_title(record: FaultRecord) -> str:
    match record.operation, record.cause:
        case "shutdown", _:
            return "The stop was not clean"
        case "verify", _:
            return "Source and target differ"
        case "adopt", _:
            return f"The {record.side} counts for nothing, by an operator's word"
        case "open", "source-changed" | "target-changed" as cause:
            return f"The {cause.partition('-')[0]} was changed while its host was stopped"
        case "open", cause:
            return f"The {record.side} could not be opened: {cause}"
        case operation, "timeout":
            return f"The {record.side} did not answer in time: {_OPERATIONS.get(operation, operation)}"
        case operation, cause:
            return f"The {record.side} failed: {_OPERATIONS.get(operation, operation)}, {cause}"


def _fault_text(record: FaultRecord) -> str:
    where = ""
    if record.offset is not None:
        length = f"{size_words(record.length)} " if record.length is not None else ""
        where = f"{length}at {size_words(record.offset)} ({record.offset} bytes) from the beginning. "
    if record.operation == "shutdown":
        where = "The target may miss writes that the source has. "
    return f"{where}Detected in {record.state}, attempt {record.attempt}."


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""


def _story(
    record: AnyRecord, tone: Tone, title: str, text: str, *, state: State | None = None, trigger: str = ""
) -> Story:
    return Story(
        migration=record.migration,
        index=record.index,
        at=record.recorded_at,
        tone=tone,
        title=title,
        text=text,
        state=state,
        trigger=trigger,
    )
