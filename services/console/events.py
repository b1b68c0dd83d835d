"""What passes on the bus, told in a line each. Pure.

Read leniently, unlike anything that decides: a field that is missing or new makes no line fail, for a monitor that
stops at what it does not know is no monitor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from rich.text import Text

from services.console.units import bytes_text, rate_text
from shared.messages.status import PROGRESS_PREFIX
from shared.plain import plain

EVERYTHING = "cutover.>"
PAYLOAD_CHARACTERS_MAX = 160  # of a message that this file has no words for

_STATE_STYLES = {
    "setup": "bold", "syncing": "bold yellow", "source-selected": "bold cyan", "target-selected": "bold magenta",
    "committed": "bold green",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One message. `data` is None when the payload is empty or no JSON."""

    subject: str
    received_at: str
    data: Any


def read_event(subject: str, payload: bytes, received_at: str) -> Event:
    """Take a message as it came."""
    try:
        data = orjson.loads(payload) if payload else None
    except orjson.JSONDecodeError:
        data = None
    return Event(subject=subject, received_at=received_at, data=data)


def event_text(event: Event) -> Text:
    """One line: when, which migration, what."""
    data: Mapping[str, Any] = event.data if isinstance(event.data, dict) else {}
    at = str(data.get("recorded_at") or data.get("at") or event.received_at)
    migration, words = _tell(event.subject.split("."), data)
    if words is None:
        words = Text(f"{plain(event.subject)} {_shortened(event.data)}", style="dim")
    return Text.assemble((plain(at), "dim"), "  ", (plain(migration), "bold"), "  ", words)


def _tell(tokens: list[str], data: Mapping[str, Any]) -> tuple[str, Text | None]:
    match tokens:
        case ["cutover", "journal", migration, *_]:
            return migration, _journal(data)
        case ["cutover", "progress", migration]:
            return migration, _progress(data)
        case ["cutover", "control", command, migration]:
            return migration, Text(f"command {plain(command)}", style="blue")
        case ["cutover", _, *_, last]:
            return last, None
        case _:
            return "-", None


def _journal(data: Mapping[str, Any]) -> Text | None:
    attempt = f" (attempt {data.get('attempt')})"
    match data.get("kind"):
        case "state":
            return _state(data)
        case "intent":
            return Text(f"commit intended{attempt}")
        case "repair":
            words = f"journal repaired at {data.get('state')}: {data.get('reason')}"
            return Text(plain(words), style="bold yellow")
        case "tombstone":
            return Text(plain(f"cleaned up, was {data.get('state')}"), style="bold")
        case "flag-set":
            return Text(f"error flag set{attempt}", style="yellow")
        case "flag-clear":
            return Text(f"error flag clear{attempt}", style="green")
        case "fault":
            words = f"{data.get('side')} fault in {data.get('state')}: {data.get('operation')}, {data.get('cause')}"
            return Text(plain(words + attempt), style="bold red")
        case _:
            return None


def _state(data: Mapping[str, Any]) -> Text:
    state = plain(str(data.get("state")))
    words = Text.assemble(("→ ", "dim"), (state, _STATE_STYLES.get(state, "bold")))
    words.append(plain(f" by {data.get('trigger')} (attempt {data.get('attempt')})"))
    if data.get("authority") == "target" and state != "committed":
        words.append(", authority moved to the target", style="red")
    if data.get("detail"):
        words.append(plain(f": {data['detail']}"))
    return words


def _progress(data: Mapping[str, Any]) -> Text | None:
    size, synced, rate = (data.get(key) for key in ("size_bytes", "synced_bytes", "rate_bytes_per_s"))
    if not isinstance(size, int) or not isinstance(synced, int) or not isinstance(rate, (int, float)):
        return None
    compared = _compared(data)
    done, rate = (synced, rate) if compared is None else compared
    what = "in sync" if compared is None else "compared"
    pace = "paused" if data.get("paused") else rate_text(rate)
    return Text(plain(f"{data.get('state')}: {bytes_text(done)} of {bytes_text(size)} {what}, {pace}"))


def _compared(data: Mapping[str, Any]) -> tuple[int, float] | None:
    """How many bytes a comparison that is under way has done, and how fast."""
    comparison = data.get("verification")
    if not isinstance(comparison, dict) or comparison.get("outcome") is not None:
        return None
    done, rate = comparison.get("compared_bytes"), comparison.get("rate_bytes_per_s")
    return (done, rate) if isinstance(done, int) and isinstance(rate, (int, float)) else None


def progress_gist(event: Event) -> tuple[object, ...] | None:
    """What a person would notice of a progress event: another gist is news, the same is not. None for other events."""
    if not event.subject.startswith(PROGRESS_PREFIX) or not isinstance(event.data, dict):
        return None
    data = event.data
    size, synced = data.get("size_bytes"), data.get("synced_bytes")
    done = compared[0] if (compared := _compared(data)) is not None else synced
    whole = done * 100 // size if isinstance(size, int) and isinstance(done, int) and size else None
    return data.get("state"), data.get("paused"), compared is None, whole


def _shortened(data: object) -> str:
    text = "" if data is None else plain(orjson.dumps(data).decode())
    return text if len(text) <= PAYLOAD_CHARACTERS_MAX else text[: PAYLOAD_CHARACTERS_MAX - 1] + "…"
