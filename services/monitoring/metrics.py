"""The picture as Prometheus metrics. Names and units by its conventions: base units, `_total` for what only grows.

`docs/monitoring/` has alert rules and a dashboard that use them; a test sees to it that every metric named there is here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from services.monitoring.frames import SERVICES
from services.monitoring.known import Known
from services.monitoring.picture import Picture, Surroundings
from services.monitoring.times import seconds_of
from shared.messages.status import HostView, LatencyView
from shared.migration.condition import HOLDS_WHAT_COUNTS
from shared.migration.devices import Side
from shared.migration.states import State

LABEL_CHARACTERS_MAX = 256

LiveValue = Callable[[HostView], float | None]


@dataclass(frozen=True, slots=True)
class _OfLive:
    """A gauge of what the host tells: one value for each migration that is open, while the host answers."""

    name: str
    help: str
    value: LiveValue


_OF_LIVE = (
    _OfLive("cutover_size_bytes", "Size of the volume.", lambda view: view.size_bytes),
    _OfLive(
        "cutover_synced_bytes", "Bytes that are the same on both devices.", lambda view: view.synced_bytes
    ),
    _OfLive("cutover_remaining_bytes", "Bytes still to be copied.", lambda view: view.remaining_bytes),
    _OfLive("cutover_copy_rate_bytes_per_second", "Rate of the copier.", lambda view: view.rate_bytes_per_s),
    _OfLive("cutover_copy_paused", "Whether the copier is paused: 1 or 0.", lambda view: view.paused),
    _OfLive(
        "cutover_resync_bytes",
        "What a sync would copy if writes were not cloned from now on.",
        lambda view: view.resync_bytes,
    ),
    _OfLive(
        "cutover_connections", "Clients that are connected to the volume.", lambda view: len(view.connections)
    ),
    _OfLive(
        "cutover_journal_pending",
        "Whether the host has decided something that the journal does not hold yet: 1 or 0.",
        lambda view: view.journal_pending,
    ),
    _OfLive(
        "cutover_outstanding_target_requests",
        "Requests of earlier attempts that may still land on the target.",
        lambda view: view.outstanding_target_requests,
    ),
)


class PictureCollector(Collector):
    """Reads the picture as it is at the moment of the scrape."""

    def __init__(self, picture: Picture) -> None:
        self._migrations = tuple(
            picture.migrations.values()
        )  # at once: the picture changes in another thread
        self._around = picture.around

    def collect(self) -> Iterator[Metric]:
        """Every metric, whether or not there is a migration."""
        yield _build_info()
        yield from _of_surroundings(self._around)
        yield from _of_migrations(self._migrations)
        # What nobody can tell at present has no sample: it would be taken for true.
        answering = [known for known in self._migrations if self._around.answers(known.host)]
        yield _of_volumes(answering)
        visible = self._migrations if self._around.link.is_connected else ()
        yield _of_journal(visible, frozenset(known.name for known in answering))
        yield from _of_hosts_views(answering)


def exposition(picture: Picture, accepted: str) -> tuple[bytes, str]:
    """All metrics as text, in the format that was asked for, and its content type."""
    encode, content_type = choose_encoder(accepted)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PictureCollector(picture))
    return encode(registry), content_type


def _build_info() -> Metric:
    return InfoMetricFamily(
        "cutover_build", "The version of the monitoring service.", {"version": version("cutover")}
    )


def _of_surroundings(around: Surroundings) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "cutover_nats_connected", "Whether monitoring is connected to NATS: 1 or 0."
    )
    connected.add_metric([], around.link.is_connected)
    yield connected
    synced = GaugeMetricFamily(
        "cutover_journal_sync_always", "Whether the journal is known to sync before it acknowledges: 1 or 0."
    )
    if around.durability.is_established is not None:
        synced.add_metric([], around.durability.is_established)
    yield synced
    hosts = GaugeMetricFamily(
        "cutover_host_up", "Whether the host's write cloning service answers: 1 or 0.", labels=["host"]
    )
    for host in tuple(around.hosts.values()):
        if host.is_up is not None:
            hosts.add_metric([host.name], host.is_up)
    yield hosts
    services = GaugeMetricFamily(
        "cutover_service_instances", "How many instances of a service answer.", labels=["service"]
    )
    for name, shown in SERVICES.items():
        if name in around.services:
            services.add_metric([shown], around.services[name])
    yield services
    not_after = GaugeMetricFamily(
        "cutover_nats_certificate_not_after_timestamp_seconds",
        "When the certificate that the NATS server shows expires, in seconds since 1970; none without TLS.",
    )
    if around.certificate_not_after is not None:
        not_after.add_metric([], around.certificate_not_after)
    yield not_after


def _of_migrations(migrations: Sequence[Known]) -> Iterator[Metric]:
    about = InfoMetricFamily("cutover_migration", "What a migration is.", labels=["migration"])
    states = StateSetMetricFamily(
        "cutover_migration_state", "The state of a migration.", labels=["migration"]
    )
    on_target = GaugeMetricFamily(
        "cutover_authority_is_target",
        "Whether the target alone is known to hold every acknowledged write: 1 or 0.",
        labels=["migration"],
    )
    flags = GaugeMetricFamily(
        "cutover_error_flag",
        "Whether the error flag is set, that is, writes are being cloned: 1 or 0.",
        labels=["migration"],
    )
    recorded = GaugeMetricFamily(
        "cutover_migration_recorded",
        "Whether the journal has the migration at all: 1, or 0 where only its host does.",
        labels=["migration"],
    )
    told_at = GaugeMetricFamily(
        "cutover_last_progress_timestamp_seconds",
        "When the host last told of the migration, in seconds since 1970.",
        labels=["migration"],
    )
    now = GaugeMetricFamily(
        "cutover_attempt_faults", "Device faults of the current attempt.", labels=["migration", "side"]
    )
    ever = CounterMetricFamily(
        "cutover_faults", "Device faults recorded so far.", labels=["migration", "side"]
    )
    for known in migrations:
        name = [known.name]
        about.add_metric(name, _about(known))
        if known.is_state_known:
            states.add_metric(name, {state: known.state is state for state in State})
            on_target.add_metric(name, known.authority is Side.TARGET)
            flags.add_metric(name, known.is_flagged)
        recorded.add_metric(name, known.is_recorded)
        if known.view is not None:
            told_at.add_metric(name, seconds_of(known.view.at))
        for side in Side:
            now.add_metric([known.name, side], sum(fault.side is side for fault in known.attempt_faults))
            ever.add_metric([known.name, side], sum(fault.side is side for fault in tuple(known.faults)))
    yield from (about, states, on_target, flags, recorded, told_at, now, ever)


def _of_volumes(answering: Sequence[Known]) -> Metric:
    is_open = GaugeMetricFamily(
        "cutover_volume_open", "Whether the host has the volume open: 1 or 0.", labels=["migration"]
    )
    for known in answering:
        if known.is_open is not None:
            is_open.add_metric([known.name], known.is_open)
    return is_open


def _of_journal(migrations: Sequence[Known], answering: frozenset[str]) -> Metric:
    """What is wrong with it may be seen without the host; that nothing is, the host alone can tell."""
    sound = GaugeMetricFamily(
        "cutover_journal_sound",
        "Whether the host finds its journal sound, that is, whole and with every record that it relied on: 1 or 0.",
        labels=["migration"],
    )
    for known in migrations:
        is_sound = known.journal_condition in HOLDS_WHAT_COUNTS
        if known.journal_condition is not None and (known.name in answering or not is_sound):
            sound.add_metric([known.name], is_sound)
    return sound


def _about(known: Known) -> dict[str, str]:
    status, view = known.status, known.view
    labels = {
        "uuid": known.uuid,
        "host": known.host,
        "source": status.source if status else view.source if view else "",
        "target": status.target if status else view.target if view else "",
        "io_engine": view.io_engine if view else "",
    }
    return {name: value[:LABEL_CHARACTERS_MAX] for name, value in labels.items()}


def _of_hosts_views(migrations: Sequence[Known]) -> Iterator[Metric]:
    live = [(known.name, view) for known in migrations if (view := known.live) is not None]
    for each in _OF_LIVE:
        gauge = GaugeMetricFamily(each.name, each.help, labels=["migration"])
        for name, view in live:
            value = each.value(view)
            if value is not None:
                gauge.add_metric([name], value)
        yield gauge
    operations = CounterMetricFamily(
        "cutover_application_operations",
        "Reads and writes of the application since the volume was opened.",
        labels=["migration", "operation"],
    )
    moved = CounterMetricFamily(
        "cutover_application_bytes",
        "Bytes that the application has read and written since the volume was opened.",
        labels=["migration", "operation"],
    )
    errors = CounterMetricFamily(
        "cutover_application_errors",
        "Requests of the application that were answered with an error of this side's device since the volume was opened.",
        labels=["migration", "side"],
    )
    troubled = GaugeMetricFamily(
        "cutover_application_troubled",
        "Whether the application got errors within the last hour, or a device without which it does is broken: 1 or 0.",
        labels=["migration"],
    )
    latencies = GaugeMetricFamily(
        "cutover_application_latency_seconds",
        "How long sampled requests of the application took during the last second: mean and worst.",
        labels=["migration", "operation", "statistic"],
    )
    for name, view in live:
        operations.add_metric([name, "read"], view.application_reads)
        operations.add_metric([name, "write"], view.application_writes)
        moved.add_metric([name, "read"], view.application_read_bytes)
        moved.add_metric([name, "write"], view.application_write_bytes)
        told = view.application_errors
        errors.add_metric([name, Side.SOURCE], told.of_source if told else 0)
        errors.add_metric([name, Side.TARGET], told.of_target if told else 0)
        troubled.add_metric([name], bool(view.application_trouble))
        _add_latency(latencies, name, "read", view.application_read_latency)
        _add_latency(latencies, name, "write", view.application_write_latency)
    yield from (operations, moved, errors, troubled, latencies)


def _add_latency(family: GaugeMetricFamily, name: str, operation: str, latency: LatencyView | None) -> None:
    if latency is not None:
        family.add_metric([name, operation, "mean"], latency.mean_s)
        family.add_metric([name, operation, "worst"], latency.worst_s)
