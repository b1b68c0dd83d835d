"""The one step that creates the streams: `python -m shared.bus.bootstrap`, once for a NATS server; again, it checks.

A stream that is there with another setting is refused, by the name of the setting, and never changed: what it holds may
have been stored under rules that lose it.
"""

import asyncio
import os
import sys
from dataclasses import dataclass

import nats.js.errors
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from shared.bus.connection import Bus, connect
from shared.bus.interface import Unanswered
from shared.clock import SystemClock
from shared.config.load import ConfigError, load
from shared.messages.status import progress_subject
from shared.migration.records import Subjects
from shared.migration.refusals import Code, Refusal
from shared.process import config_argument, plain_lines

TIMEOUT_S = 10.0  # nats-py's own is shorter
PROGRESS_STREAM = "CUTOVER_PROGRESS"
PROGRESS_SUBJECTS = progress_subject("*")


@dataclass(frozen=True, slots=True)
class _Demand:
    """A stream, and the reason for each setting that matters."""

    config: StreamConfig
    checked: tuple[str, ...]
    unset: tuple[str, ...] = ()  # settings that are not to be there at all


_JOURNAL = _Demand(
    StreamConfig(
        name=Subjects.STREAM,
        description="States, error flags and device faults of every migration",
        subjects=[Subjects.ALL],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        # Full is full: a record that finds no room is refused, and never makes room by dropping an older one.
        discard=DiscardPolicy.NEW,
        max_msgs=-1,
        max_bytes=-1,
        max_age=0,
        max_msgs_per_subject=-1,
        deny_delete=True,
        deny_purge=True,
        allow_rollup_hdrs=False,
        # A direct get may be answered by a replica that lags.
        allow_direct=False,
    ),
    checked=(
        "subjects",
        "retention",
        "storage",
        "discard",
        "max_msgs",
        "max_bytes",
        "max_age",
        "max_msgs_per_subject",
        "deny_delete",
        "deny_purge",
        "allow_rollup_hdrs",
        "allow_direct",
    ),
    # With these whoever publishes a record has it expire, none is stored, or they come from or go elsewhere.
    unset=(
        "allow_msg_ttl",
        "no_ack",
        "sealed",
        "mirror",
        "sources",
        "republish",
        "subject_transform",
        "allow_msg_schedules",
        "allow_msg_counter",
    ),
)
_PROGRESS = _Demand(
    StreamConfig(
        name=PROGRESS_STREAM,
        description="How far each migration is: the last word of its host",
        subjects=[PROGRESS_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.MEMORY,
        discard=DiscardPolicy.OLD,
        max_msgs_per_subject=1,
        allow_direct=True,
    ),
    checked=("subjects", "storage", "max_msgs_per_subject"),
)


async def bootstrap(bus: Bus) -> None:
    """Create the streams that are missing, and check the others.

    Raises:
        Refusal: `journal-unsound` naming the settings that differ; `journal-away`.
    """
    for demand in (_JOURNAL, _PROGRESS):
        await _ensure(bus, demand)


async def ensure_progress(bus: Bus) -> None:
    """Create the stream of progress alone, where it is missing: it is kept in memory, and ends with its server.

    Raises:
        Refusal: as `bootstrap`.
    """
    await _ensure(bus, _PROGRESS)


async def require_journal(bus: Bus) -> None:
    """See that the journal has the settings that it has to have, as far as there is one and the server answers.

    Raises:
        Refusal: `journal-unsound` naming the settings that differ.
    """
    try:
        async with bus.waiting("$JS.API.STREAM", TIMEOUT_S):
            info = await bus.client.jetstream().stream_info(Subjects.STREAM)
    except (Refusal, nats.js.errors.Error):
        return  # whoever reads or writes it is told
    _refuse_differing(bus, _JOURNAL, info.config)


async def _ensure(bus: Bus, demand: _Demand) -> None:
    try:
        info = await _found_or_made(bus, demand.config)
    except Unanswered as unanswered:
        raise Refusal(Code.JOURNAL_AWAY, f"JetStream at {bus.url} does not answer.") from unanswered
    except nats.js.errors.Error as error:
        raise Refusal(Code.JOURNAL_AWAY, f"JetStream at {bus.url} does not answer: {error}.") from error
    _refuse_differing(bus, demand, info.config)


def _refuse_differing(bus: Bus, demand: _Demand, present: StreamConfig) -> None:
    if differing := _differing(demand, present):
        raise Refusal(
            Code.JOURNAL_UNSOUND,
            f"The stream {demand.config.name} at {bus.url} is there with other settings: {'; '.join(differing)}.",
        )


async def _found_or_made(bus: Bus, config: StreamConfig) -> StreamInfo:
    jetstream = bus.client.jetstream()
    async with bus.waiting("$JS.API.STREAM", TIMEOUT_S):
        try:
            return await jetstream.stream_info(str(config.name))
        except nats.js.errors.NotFoundError:
            return await jetstream.add_stream(config=config)


def differing_settings(config: StreamConfig) -> tuple[str, ...]:
    """What one of our streams has otherwise than it has to, a clause each. Changes nothing, and asks nobody."""
    demand = next(each for each in (_JOURNAL, _PROGRESS) if each.config.name == config.name)
    return tuple(_differing(demand, config))


def _differing(demand: _Demand, present: StreamConfig) -> list[str]:
    return [
        f"{setting} is {_shown(found)}, not {_shown(wanted)}"
        for setting in demand.checked
        if (found := getattr(present, setting)) != (wanted := getattr(demand.config, setting))
    ] + [f"{setting} is set, and must not be" for setting in demand.unset if getattr(present, setting)]


def _shown(value: object) -> str:
    return f"{value!s}".lower() if isinstance(value, bool) else str(value)


async def _main() -> int:
    try:
        config = load(
            config_argument("shared.bus.bootstrap", "Create the streams, or check them."), os.environ
        )
        bus = await connect(config.nats, name="cutover-bootstrap", clock=SystemClock())
        try:
            await bootstrap(bus)
        finally:
            await bus.close()
    except (ConfigError, Refusal) as error:
        sys.stderr.write(f"{plain_lines(str(error))}\n")
        return 1
    sys.stderr.write(
        f"The streams {Subjects.STREAM} and {PROGRESS_STREAM} are there, with the right settings.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
