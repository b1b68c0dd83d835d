"""A world for the page to show, staged: as many migrations as a test wants, in every state, told as they would be."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.monitoring.picture import Durability, Link, Picture
from shared.bus.interface import ServiceInstance
from shared.messages.control import ListReply
from shared.messages.status import (
    ConnectionView,
    FaultView,
    HostView,
    LatencyView,
    MigrationStatus,
    RoutingView,
)
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.records import AnyRecord, DevicePair
from shared.migration.states import CLONING_STATES, IN_SYNC_STATES, State, routing_of
from tests.support import statuses
from tests.support.records import DEVICES, fault_record, flag_clear, flag_set, state_record

GIB = 1 << 30
BEGAN = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)
SERVICES = ("cutover-fault-recording", "cutover-state-control", "cutover-startup")


def text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def view(
    name: str = "vol1",
    state: State = State.SYNCING,
    *,
    part: float = 0.67,
    at: datetime = BEGAN,
    **fields: object,
) -> HostView:
    """What a host would tell of a migration of which this part is copied."""
    size = 64 * GIB
    synced = size if state in IN_SYNC_STATES or state is State.COMMITTED else int(size * part)
    synced = 0 if state is State.SETUP else synced
    authority = Side.TARGET if state is State.COMMITTED else Side.SOURCE
    routing = routing_of(state, authority)
    rate = 140e6 if state is State.SYNCING else 0.0
    told = HostView(
        name=name,
        uuid=f"uuid-of-{name}",
        host="vm",
        run=3,
        state=state,
        authority=authority,
        attempt=0 if state is State.SETUP else 1,
        decision=list(State).index(state) + 1,
        journal_pending=False,
        size_bytes=size,
        synced_bytes=synced,
        remaining_bytes=size - synced if state in CLONING_STATES else 0,
        rate_bytes_per_s=rate,
        eta_s=(size - synced) / rate if rate else None,
        paused=False,
        throttle_bytes_per_s=None,
        resync_bytes=None if authority is Side.TARGET else size,
        full_resync_because="nothing has been copied yet" if state is State.SETUP else None,
        export_uri=f"nbd+unix:///{name}?socket=/run/cutover/nbd.sock",
        connections=(ConnectionView(peer="qemu-system-x86 (pid 4121, uid 64055)", connected_at=text(BEGAN)),),
        io_engine="io_uring, direct",
        routing=RoutingView(
            reads=routing.reads, writes=tuple(sorted(routing.writes)), flushes=tuple(sorted(routing.flushes))
        ),
        region_cells=cells(state, part),
        journal_condition=JournalCondition.SOUND,
        at=text(at),
    )
    return replace(told, **fields)  # type: ignore[arg-type]


def cells(state: State, part: float) -> str:
    if state is State.COMMITTED:
        return ""
    if state is State.SETUP:
        return "x" * 256
    done = 256 if state in IN_SYNC_STATES else int(256 * part)
    told = ["d" if at % 37 in {3, 4} or at % 61 == 20 else "s" for at in range(done)]
    return "".join(told) + "cc" * (done < 254) + "x" * (256 - done - 2 * (done < 254))


def status(told: HostView, **fields: object) -> MigrationStatus:
    """What state_control would answer at the same moment."""
    answered = statuses.status(
        name=told.name,
        uuid=told.uuid,
        state=told.state,
        attempt=told.attempt,
        authority=told.authority,
        error_flag=told.state in CLONING_STATES,
        size_bytes=told.size_bytes,
        synced_bytes=told.synced_bytes,
        remaining_bytes=told.remaining_bytes,
        paused=told.paused,
        host=told.host,
        source=f"/dev/vg0/{told.name}",
        target=f"/dev/vg1/{told.name}",
        devices=devices_of(told),
        connections=told.connections,
    )
    return replace(answered, **fields)  # type: ignore[arg-type]


def devices_of(told: HostView) -> DevicePair:
    return DevicePair(
        source=replace(DEVICES.source, name=f"/dev/vg0/{told.name}", size_bytes=told.size_bytes),
        target=replace(DEVICES.target, name=f"/dev/vg1/{told.name}", size_bytes=told.size_bytes),
    )


def history(told: HostView) -> Sequence[AnyRecord]:
    """The records that lead to where it is, one after the other."""
    at = (text(BEGAN - timedelta(minutes=90 - 14 * step)) for step in range(9))
    first = state_record(
        "1", State.SETUP, trigger="setup", attempt=0, recorded_at=next(at), devices=devices_of(told)
    )
    path: list[AnyRecord] = [first]
    if told.state is not State.SETUP:
        path.append(flag_set("2", recorded_at=next(at)))
        path.append(state_record("3", State.SYNCING, trigger="sync", devices=None, recorded_at=next(at)))
    for state, trigger in (
        (State.SOURCE_SELECTED, "copied"), (State.TARGET_SELECTED, "select-target"), (State.COMMITTED, "commit"),
    ):  # fmt: skip
        if list(State).index(told.state) >= list(State).index(state):
            side = Side.TARGET if state is State.COMMITTED else Side.SOURCE
            path.append(
                state_record(
                    trigger, state, trigger=trigger, authority=side, devices=None, recorded_at=next(at)
                )
            )
    if told.state is State.COMMITTED:
        path.append(flag_clear("6", recorded_at=next(at)))
    return [
        replace(
            record, index=at + 1, migration=told.name, uuid=told.uuid, decision=min(at + 1, told.decision)
        )
        for at, record in enumerate(path)
    ]


def fault_of(told: HostView) -> FaultView:
    return FaultView(
        migration=told.name,
        attempt=told.attempt,
        side=Side.TARGET,
        state=State.SYNCING,
        operation="write",
        cause="EIO",
        errno=5,
        offset=41 * GIB,
        length=65536,
        host=told.host,
        detected_at=text(BEGAN),
        recorded_at=text(BEGAN + timedelta(milliseconds=12)),
    )


class World:
    """Migrations that are told of, and go on."""

    def __init__(self, picture: Picture, count: int, began: datetime) -> None:
        self.picture = picture
        self.at = began
        self.views = [self._first(number, count) for number in range(count)]

    def _first(self, number: int, count: int) -> HostView:
        if count == 1:
            return view("vol1", part=0.62, at=self.at)
        states = list(State)
        state = State.SYNCING if number % 3 == 0 else states[number % len(states)]
        name = f"{('mail', 'orders-db', 'web', 'archive', 'vm-disk')[number % 5]}-{number + 1:03}"
        told = view(name, state, part=(number * 37 % 90) / 100 + 0.05, at=self.at, host=f"vm{number % 3 + 1}")
        if number % 19 == 7 and state is not State.COMMITTED:
            told = replace(
                told, state=State.SETUP, attempt=2, synced_bytes=0, remaining_bytes=0, rate_bytes_per_s=0.0
            )
        return told

    def tell(self, *, with_histories: bool = True) -> None:
        """Everything, as a service that has just begun would learn it."""
        now = self.at.timestamp()
        hosts = sorted({told.host for told in self.views})
        self.picture.told_link(
            Link(is_connected=True, since=now, url="nats://127.0.0.1:4222", server_version="2.15.2")
        )
        answering = {name: (ServiceInstance(name=name, instance_id="1", metadata={}),) for name in SERVICES}
        answering["cutover-write-cloning"] = tuple(
            ServiceInstance(name="", instance_id=host, metadata={"host": host, "run": "3"}) for host in hosts
        )  # type: ignore[assignment]
        self.picture.told_instances(answering, now)
        self.picture.told_durability(Durability(is_established=True))
        self.picture.told_list(ListReply(migrations=tuple(status(told) for told in self.views)), now, now)
        self.picture.told_faults([fault_of(told) for told in self.views if told.attempt == 2])
        for told in self.views:
            self.picture.told_progress(told, now)
            if with_histories:
                self.picture.told_history(told.name, history(told), is_whole=True)
        self.picture.told_past(
            [*(each for told in self.views[:40] for each in history(told)[-3:]), *self._past_faults()]
        )

    def _past_faults(self) -> list[AnyRecord]:
        return [
            replace(fault_record(), migration=told.name, uuid=told.uuid, index=90, recorded_at=text(self.at))
            for told in self.views
            if told.attempt == 2
        ]

    def go_on(self, seconds: float = 1.0) -> None:
        """Time passes, the copiers copy, applications read and write."""
        self.at += timedelta(seconds=seconds)
        self.views = [self._moved(told, seconds, number) for number, told in enumerate(self.views)]
        for told in self.views:
            self.picture.told_progress(told, self.at.timestamp())

    def _moved(self, told: HostView, seconds: float, number: int) -> HostView:
        wave = (
            1 + 0.12 * math.sin(self.at.timestamp() / 7 + number) + 0.05 * math.sin(self.at.timestamp() / 1.7)
        )
        rate = 140e6 * wave if told.state is State.SYNCING else 0.0
        synced = min(told.size_bytes, told.synced_bytes + int(rate * seconds))
        left = told.size_bytes - synced
        mean_s = 0.00034 * wave
        return replace(
            told,
            at=text(self.at),
            synced_bytes=synced,
            remaining_bytes=left if told.state in CLONING_STATES else 0,
            rate_bytes_per_s=rate,
            eta_s=left / rate if rate else None,
            application_reads=told.application_reads + int(5400 * wave * seconds),
            application_writes=told.application_writes + int(3100 / wave * seconds),
            application_read_bytes=told.application_read_bytes + int(22e6 * seconds),
            application_write_bytes=told.application_write_bytes + int(12e6 * seconds),
            application_read_latency=LatencyView(samples=40, mean_s=mean_s / 2, worst_s=mean_s * 3),
            application_write_latency=LatencyView(samples=40, mean_s=mean_s, worst_s=mean_s * 6),
            region_cells=cells(told.state, synced / told.size_bytes),
        )
