"""The one picture of the world that browsers and Prometheus are shown. Pure: it is told, and knows neither NATS nor a clock.

Every change has a number. Who was shown the picture up to a number is owed what changed since, however long that was ago; so
nothing is queued for anybody, and who is slow gets the newest state instead of a backlog.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.monitoring.known import REST_AFTER_S, TOLD_WITHIN_S, History, Known
from services.monitoring.stories import Story, Telling, is_source_fault, story_of
from shared.bus.interface import ServiceInstance
from shared.messages.control import ListReply
from shared.messages.host import HOST_SERVICE_NAME
from shared.messages.status import FaultView, HostView, MigrationStatus, UnlistedMigration
from shared.migration.devices import Side
from shared.migration.names import is_valid_name
from shared.migration.records import AnyRecord, FaultRecord, TombstoneRecord

EVENTS_MAX = 200
GONE_MAX = 1000
HISTORIES_MAX = 32  # migrations whose history is kept; the one that was looked at longest ago gives way
STORIES_MAX = 500  # of one history
HOST_KEPT_S = 15 * 60.0  # a host that nothing names any more, and that does not answer
_RUN_CHARACTERS_MAX = 20


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the feed."""

    version: int
    story: Story


@dataclass(slots=True, kw_only=True)
class HostKnown:
    """One host. `heard` is when it last answered; None: never since we look."""

    name: str
    is_up: bool | None = None  # None: nobody can tell at present
    run: str = ""
    heard: float | None = None
    up_since: float = 0.0  # since when it has answered without a break, where it is up

    def answered(self, now: float) -> None:
        """It has."""
        if not self.is_up:
            self.up_since = now
        self.is_up, self.heard = True, now

    def is_heard_after(self, since: float, now: float) -> bool:
        """Whether it had its time to tell of every change after a moment, and somebody heard it."""
        begin = max(since, self.up_since)
        return (
            self.is_up is True
            and self.heard is not None
            and self.heard > since + TOLD_WITHIN_S
            and now - begin > REST_AFTER_S
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The connection to NATS."""

    is_connected: bool = False
    since: float = 0.0
    url: str = ""
    server_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """Whether the journal syncs before it acknowledges; None: nobody can tell. `because` says why not, or why it is not known."""

    is_established: bool | None = None
    because: str = ""


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What is not of one migration."""

    version: int = 0
    link: Link = field(default_factory=Link)
    durability: Durability = field(default_factory=Durability)
    services: dict[str, int] = field(default_factory=dict)  # how many instances of each answer
    hosts: dict[str, HostKnown] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    certificate_not_after: float | None = None  # of the NATS server; None without TLS
    listed: float | None = None  # when all migrations were last asked for

    def answers(self, host: str) -> bool:
        """Whether a host is known to answer at present."""
        known = self.hosts.get(host)
        return known is not None and known.is_up is True


class Picture:
    """See the module's docstring. Times (`now`) are seconds since 1970, by our clock."""

    def __init__(self, epoch: str) -> None:
        """`epoch` tells this picture from that of an earlier process."""
        self.epoch = epoch
        self.version = 0
        self.migrations: dict[str, Known] = {}
        self.around = Surroundings()
        self.events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self.gone: deque[tuple[int, str]] = deque(maxlen=GONE_MAX)
        self._read: dict[str, None] = {}  # whose history is kept, oldest first
        self._changed: Callable[[], None] = _nobody

    def on_change(self, changed: Callable[[], None]) -> None:
        """Have this called after every change."""
        self._changed = changed

    # ------------------------------------------------------------------ what was heard of migrations

    def told_progress(self, view: HostView, now: float) -> None:
        """A host has told how one gets on."""
        known = self._known(view.name, view.uuid)
        known.told_view(view, now)
        self._host(view.host).heard = now
        self._touch(known)

    def told_status(self, status: MigrationStatus, now: float) -> None:
        """State control has answered for one."""
        known = self._known(status.name, status.uuid)
        known.told_status(status, now)
        self._answered(status.host, now, answers=status.host_answers)
        self._touch(known)

    def told_unlisted(self, unlisted: UnlistedMigration, now: float) -> None:
        """A host has one of which the journal does not tell."""
        before = self.migrations.get(unlisted.name)
        known = self._known(unlisted.name, unlisted.uuid or (before.uuid if before is not None else ""))
        known.told_unlisted(unlisted, now)
        if unlisted.host:
            self._answered(unlisted.host, now, answers=unlisted.host_answers)
        self._touch(known)

    def told_list(self, reply: ListReply, asked_at: float, now: float) -> None:
        """State control has named all there are: what was not heard of since it was asked, and is not named, is gone.

        Where its host cannot be asked at present, nobody knows whether the journal has lost it.
        """
        for status in reply.migrations:
            self.told_status(status, now)
        for unlisted in reply.unlisted:
            self.told_unlisted(unlisted, now)
        named = {status.name for status in reply.migrations} | {each.name for each in reply.unlisted}
        unreadable = {warning.partition(":")[0] for warning in reply.warnings}
        for name, known in tuple(self.migrations.items()):
            is_named = name in named | unreadable
            if not is_named and known.heard < asked_at and not self._is_out_of_reach(known.host, now):
                self.told_gone(name)
        around = self.around
        around.warnings, around.listed = reply.warnings, now
        self._touch_surroundings()

    def _is_out_of_reach(self, name: str, now: float) -> bool:
        """Whether a host that was there lately does not answer at present."""
        host = self.around.hosts.get(name)
        return (
            host is not None and not host.is_up and host.heard is not None and now - host.heard < HOST_KEPT_S
        )

    def told_faults(self, faults: Iterable[FaultView]) -> None:
        """The fault log of every migration that exists."""
        by_name: dict[str, list[FaultView]] = {name: [] for name in self.migrations}
        for fault in faults:
            if fault.migration in by_name:
                by_name[fault.migration].append(fault)
        for name, of_one in by_name.items():
            known = self.migrations[name]
            if len(of_one) != known.fault_count:
                known.told_faults(of_one)
                self._touch(known)

    def told_record(self, record: AnyRecord) -> None:
        """The journal has a new record."""
        story = story_of(record, source_failed=self._has_source_failed(record))
        if isinstance(record, TombstoneRecord):
            known = self.migrations.get(record.migration)
            if known is not None and known.uuid in {"", record.uuid}:
                self.told_gone(record.migration)
        else:
            known = self._known(record.migration, record.uuid)
            known.told_record(record)
            if isinstance(record, FaultRecord):
                known.add_fault(_view_of(record))
            self._go_on(known, record)
            self._touch(known)
        self._add_event(story)

    def _has_source_failed(self, record: AnyRecord) -> bool:
        known = self.migrations.get(record.migration)
        return (
            known is not None
            and known.uuid == record.uuid
            and any(fault.side is Side.SOURCE and fault.attempt == record.attempt for fault in known.faults)
        )

    def told_gone(self, name: str) -> None:
        """There is no such migration any more."""
        if self.migrations.pop(name, None) is not None:
            self.version += 1
            self.gone.append((self.version, name))
            self._read.pop(name, None)
            self._changed()

    def _known(self, name: str, uuid: str) -> Known:
        known = self.migrations.get(name)
        if known is None or (known.uuid and known.uuid != uuid):
            known = self.migrations[name] = Known(name=name)
            self._read.pop(name, None)
        known.uuid = uuid
        return known

    # ------------------------------------------------------------------ histories and events

    def told_history(self, name: str, records: Sequence[AnyRecord], *, is_whole: bool) -> None:
        """What the journal holds of one migration; the part that is of its present life."""
        known = self.migrations.get(name)
        if known is None:
            return
        telling = Telling()
        stories = [telling.tell(record) for record in records if record.uuid == known.uuid]
        known.history = History(
            stories=stories[-STORIES_MAX:],
            is_whole=is_whole and len(stories) <= STORIES_MAX,
            last_index=records[-1].index if records else 0,
            telling=telling,
        )
        self._keep(name)
        self._touch(known)

    def wants_history(self, name: str) -> bool:
        """Whether the history of a migration has to be read: nobody has, or records were missed since."""
        known = self.migrations.get(name)
        return known is not None and known.history is None

    def forget_histories(self) -> None:
        """Records may have been missed: whoever looks at a history has it read anew."""
        for name in tuple(self._read):
            self.migrations[name].history = None
        self._read.clear()

    def told_past(self, records: Iterable[AnyRecord]) -> None:
        """The last records of the journal, from before we listened."""
        known = {(event.story.migration, event.story.index, event.story.at) for event in self.events}
        past, source_failed_in = [], set()
        for record in records:
            if is_source_fault(record):
                source_failed_in.add((record.uuid, record.attempt))
            source_failed = (record.uuid, record.attempt) in source_failed_in
            past.append(story_of(record, source_failed=source_failed))
        missing = [story for story in past if (story.migration, story.index, story.at) not in known]
        told = sorted([*missing, *(event.story for event in self.events)], key=lambda story: story.at)
        self.events.clear()
        for story in told:
            self._add_event(story)

    def _go_on(self, known: Known, record: AnyRecord) -> None:
        history = known.history
        if history is None:
            return
        if record.index != history.last_index + 1:
            known.history = None
            self._read.pop(known.name, None)
            return
        history.last_index = record.index
        history.stories.append(history.telling.tell(record))
        if len(history.stories) > STORIES_MAX:
            del history.stories[:-STORIES_MAX]
            history.is_whole = False

    def _keep(self, name: str) -> None:
        self._read.pop(name, None)
        self._read[name] = None
        for oldest in tuple(self._read)[:-HISTORIES_MAX]:
            self.migrations[oldest].history = None
            del self._read[oldest]

    def _add_event(self, story: Story) -> None:
        self.version += 1
        self.events.append(Event(self.version, story))
        self._changed()

    # ------------------------------------------------------------------ what is around

    def told_link(self, link: Link) -> None:
        """The connection to NATS is there, or lost."""
        if not link.is_connected:
            self.around.services = {}
            self.around.durability = (
                Durability()
            )  # the server that comes back may be another, or have other settings
            for host in self.around.hosts.values():
                host.is_up = None
        self.around.link = link
        self._touch_surroundings()

    def told_certificate(self, not_after: float | None) -> None:
        """Until when the certificate is good that the server shows to those who connect."""
        if self.around.certificate_not_after != not_after:
            self.around.certificate_not_after = not_after
            self._touch_surroundings()

    def told_durability(self, durability: Durability) -> None:
        """What the journal's acknowledgement is worth."""
        if self.around.durability != durability:
            self.around.durability = durability
            self._touch_surroundings()

    def told_instances(self, answering: Mapping[str, Sequence[ServiceInstance]], now: float) -> None:
        """Who has answered `$SRV.INFO`, for each service that was asked for."""
        self.around.services = {name: len(instances) for name, instances in answering.items()}
        up = {each.metadata.get("host", ""): each.metadata for each in answering.get(HOST_SERVICE_NAME, ())}
        for name in filter(is_valid_name, up):
            self._host(name)
        for host in self.around.hosts.values():
            if host.name in up:
                host.answered(now)
                host.run = up[host.name].get("run", "")[:_RUN_CHARACTERS_MAX]
            else:
                host.is_up = False
        self._touch_surroundings()

    def passed(self, now: float) -> None:
        """Time has passed: what a host says nothing of any more does not move, and who is gone for good is forgotten.

        Silence of a host that cannot be heard says nothing: its applications may go on.
        """
        for known in self.migrations.values():
            is_silent = known.view is not None and now - known.view_heard > REST_AFTER_S
            if is_silent and self._note_silence(known, now):
                self._touch(known)
        self._forget_hosts(now)

    def _note_silence(self, known: Known, now: float) -> bool:
        """Returns whether that is news."""
        host = self.around.hosts.get(known.host)
        if host is None or not host.is_up:
            return known.series.lose()
        return host.is_heard_after(known.view_heard, now) and known.series.rest()

    def _forget_hosts(self, now: float) -> None:
        """A host that was retired, or has another name now, is not missed for ever; one that has a migration is."""
        hosts = self.around.hosts
        silent = {
            host.name
            for host in hosts.values()
            if host.is_up is False and now - (host.heard or 0) > HOST_KEPT_S
        }
        if gone := silent and silent - {known.host for known in self.migrations.values()}:
            self.around.hosts = {name: host for name, host in hosts.items() if name not in gone}
            self._touch_surroundings()

    def _answered(self, name: str, now: float, *, answers: bool) -> None:
        """State control has asked a host. One that has not answered it in time is not away for that."""
        host = self._host(name)
        if answers and self.around.link.is_connected:
            host.answered(now)
            self._touch_surroundings()

    def _host(self, name: str) -> HostKnown:
        if name not in self.around.hosts:
            self.around.hosts[name] = HostKnown(name=name)
            self._touch_surroundings()
        return self.around.hosts[name]

    def _touch(self, known: Known) -> None:
        self.version += 1
        known.version = self.version
        self._changed()

    def _touch_surroundings(self) -> None:
        self.version += 1
        self.around.version = self.version
        self._changed()


def _view_of(record: FaultRecord) -> FaultView:
    return FaultView(
        migration=record.migration,
        attempt=record.attempt,
        side=record.side,
        state=record.state,
        operation=record.operation,
        cause=record.cause,
        errno=record.errno,
        offset=record.offset,
        length=record.length,
        host=record.host,
        detected_at=record.detected_at,
        recorded_at=record.recorded_at,
    )


def _nobody() -> None:
    """Nobody wants to be told."""
