"""Statuses, faults and progress, drawn for people. Every text that came from elsewhere goes through `plain`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.console.units import bytes_text, duration_text, rate_text
from shared.messages.control import CommandReply
from shared.messages.status import (
    UNREADABLE_REGIONS_MAX,
    FaultView,
    MigrationStatus,
    Outcome,
    RoutingView,
    StatusSource,
    Unrecorded,
    VerificationView,
)
from shared.migration.condition import WORDS, JournalCondition
from shared.migration.devices import DeviceIdentity, Side
from shared.migration.states import CLONING_STATES, State
from shared.migration.telling import fault_words
from shared.plain import plain

BAR_CELLS = 24
_FAULT_LINES_MAX = 3
_STATE_STYLES = {
    State.SETUP: "bold",
    State.SYNCING: "bold yellow",
    State.SOURCE_SELECTED: "bold cyan",
    State.TARGET_SELECTED: "bold magenta",
    State.COMMITTED: "bold green",
}


def state_text(state: State) -> Text:
    """A state in its colour."""
    return Text(state.value, style=_STATE_STYLES[state])


def reply_text(reply: CommandReply, done: str) -> RenderableType:
    """What a command did: one line, and a second where the services have something to add."""
    line = Text.assemble((plain(reply.name), "bold"), f": {done}")
    if not reply.journal:
        line.append(
            " Decided and durable at the host; the journal does not hold it yet and will follow.",
            style="yellow",
        )
    rest = [Text(plain(reply.message))] if reply.message else []
    return Group(line, *rest)


def status_line(status: MigrationStatus, columns: int | None = None) -> Text:
    """One line: state, bar, percent, rate, what remains, when it ends, faults.

    Where it has only so many columns, what matters least is left out: a line that wraps cannot be drawn over.
    """
    parts = list(_line_parts(status))
    line = _joined(parts)
    for least in sorted({part.weight for part in parts if part.weight < Weight.NEVER_LEFT_OUT}):
        if columns is None or line.cell_len <= columns:
            return line
        parts = [part for part in parts if part.weight != least]
        line = _joined(parts)
    if columns is not None:
        line.truncate(columns, overflow="ellipsis")  # a long name, or much trouble at once
    return line


class Weight(IntEnum):
    """How much a part of the line matters; the least is left out first."""

    SIZE = auto()
    REMAINING = auto()
    NO_FAULTS = auto()
    BAR = auto()
    RATE = auto()
    END = auto()
    NEVER_LEFT_OUT = auto()


@dataclass(frozen=True, slots=True)
class _Part:
    text: Text
    weight: Weight
    before: str = "  "


def _joined(parts: Iterable[_Part]) -> Text:
    line = Text()
    for part in parts:
        line.append(part.before if line else "").append_text(part.text)
    return line


def _line_parts(status: MigrationStatus) -> Iterable[_Part]:
    yield _Part(Text(plain(status.name), style="bold"), Weight.NEVER_LEFT_OUT)
    yield _Part(state_text(status.state), Weight.NEVER_LEFT_OUT)
    if (comparison := comparison_under_way(status.verification)) is not None:
        yield _Part(Text("comparing", style="bold yellow"), Weight.NEVER_LEFT_OUT)
        yield from _progress_parts(_of_comparison(status, comparison))
    elif status.state is State.SYNCING and status.synced_bytes is not None:
        yield from _progress_parts(_of_copy(status, status.synced_bytes))
    faults = len(current_faults(status))
    if faults:
        yield _Part(Text(f"faults {faults}", style="bold red"), Weight.NEVER_LEFT_OUT)
    else:
        yield _Part(Text("faults 0", style="dim"), Weight.NO_FAULTS)
    if status.authority is Side.TARGET and status.state in CLONING_STATES:
        yield _alarm("the source has failed: commit")
    if not status.host_answers:
        yield _alarm("the host does not answer")
    if status.application_trouble:
        yield _alarm("the application gets errors")
    if status.journal_pending:
        yield _Part(Text("journal behind", style="yellow"), Weight.NEVER_LEFT_OUT)


def _alarm(words: str) -> _Part:
    return _Part(Text(words, style="bold red"), Weight.NEVER_LEFT_OUT)


def comparison_under_way(comparison: VerificationView | None) -> VerificationView | None:
    """The comparison of both sides, if it goes on right now."""
    return comparison if comparison is not None and comparison.outcome is None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """How far copying or comparing is."""

    done_bytes: int
    size_bytes: int
    remaining_bytes: int | None
    rate_bytes_per_s: float | None
    eta_s: float | None
    paused: bool | None


def _of_copy(status: MigrationStatus, done_bytes: int) -> _Progress:
    return _Progress(
        done_bytes=done_bytes,
        size_bytes=status.size_bytes,
        remaining_bytes=status.remaining_bytes,
        rate_bytes_per_s=status.rate_bytes_per_s,
        eta_s=status.eta_s,
        paused=status.paused,
    )


def _of_comparison(status: MigrationStatus, comparison: VerificationView) -> _Progress:
    return _Progress(
        done_bytes=comparison.compared_bytes,
        size_bytes=status.size_bytes,
        remaining_bytes=comparison.remaining_bytes,
        rate_bytes_per_s=comparison.rate_bytes_per_s,
        eta_s=comparison.eta_s,
        paused=status.paused,
    )


def _progress_parts(progress: _Progress) -> Iterable[_Part]:
    yield _Part(_cells_text(progress.done_bytes, progress.size_bytes), Weight.BAR)
    yield _Part(Text(_share(progress.done_bytes, progress.size_bytes)), Weight.NEVER_LEFT_OUT, " ")
    yield _Part(Text(f"of {bytes_text(progress.size_bytes)}"), Weight.SIZE, " ")
    between = "  "
    for weight, words in _paces(progress):
        yield _Part(Text(words), weight, between)
        between = ", "


def bar_text(done_bytes: int, size_bytes: int) -> Text:
    """A bar and a percentage; it says 100 % only when nothing remains."""
    return _cells_text(done_bytes, size_bytes).append(f" {_share(done_bytes, size_bytes)}")


def _cells_text(done_bytes: int, size_bytes: int) -> Text:
    cells = int(BAR_CELLS * done_bytes / size_bytes) if size_bytes else BAR_CELLS
    return Text.assemble(("━" * cells, "green"), ("─" * (BAR_CELLS - cells), "dim"))


def _share(done_bytes: int, size_bytes: int) -> str:
    share = done_bytes / size_bytes if size_bytes else 1.0
    return f"{int(share * 1000) / 10:5.1f} %"


def _pace(progress: _Progress) -> str:
    return ", ".join(words for _, words in _paces(progress))


def _paces(progress: _Progress) -> Iterable[tuple[Weight, str]]:
    if progress.remaining_bytes is not None:
        yield Weight.REMAINING, f"{bytes_text(progress.remaining_bytes)} left"
    if progress.paused or progress.rate_bytes_per_s is None:
        yield Weight.NEVER_LEFT_OUT, "paused" if progress.paused else "rate unknown"
        return
    yield Weight.RATE, rate_text(progress.rate_bytes_per_s)
    if progress.eta_s is not None:
        yield Weight.END, f"{duration_text(progress.eta_s)} to go"


def current_faults(status: MigrationStatus) -> tuple[FaultView, ...]:
    """The faults of the attempt that the migration is in."""
    return tuple(fault for fault in status.faults if fault.attempt == status.attempt)


_NOT_KNOWN = "not known: the host does not answer"


def status_view(status: MigrationStatus) -> RenderableType:
    """Everything that is known of one migration."""
    head = Text.assemble(
        (plain(status.name), "bold"), "  ", state_text(status.state), f"  attempt {status.attempt}"
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for label, value in _fields(status):
        table.add_row(label, value)
    return Group(head, table)


def _fields(status: MigrationStatus) -> Iterable[tuple[str, RenderableType]]:
    yield "uuid", status.uuid
    yield "source", _device(status.source, status.devices.source)
    yield "target", _device(status.target, status.devices.target)
    if status.state is State.SYNCING:
        yield from _copy_fields(status)
    yield from _resync_fields(status)
    yield from _verify_fields(status)
    if status.routing is not None:
        yield "routing", _routing(status.routing)
    yield "authority", _authority(status)
    yield "error flag", _flag(status)
    yield "export", plain(status.export_uri or ("closed" if status.host_answers else _NOT_KNOWN))
    yield "clients", _clients(status)
    yield "host", _host(status)
    yield "faults", _faults(status)
    if status.unreadable_regions:
        yield (
            "unreadable",
            Text(
                f"source regions {', '.join(map(str, status.unreadable_regions))}{_more_regions(status)}",
                style="red",
            ),
        )
    if status.unrecorded is not None:
        yield "to record", _unrecorded(status.unrecorded)
    yield "allowed", _allowed(status)
    yield "as of", plain(status.as_of) + ("" if status.host_answers else ", the journal's last record")
    for warning in status.warnings:
        is_trouble = warning == status.application_trouble
        yield "warning", Text(plain(warning), style="red" if is_trouble else "yellow")


def _more_regions(status: MigrationStatus) -> str:
    return ", and perhaps more" if len(status.unreadable_regions) >= UNREADABLE_REGIONS_MAX else ""


def _flag(status: MigrationStatus) -> str:
    if not status.error_flag:
        return "clear"
    return "set: writes are being cloned" if status.state in CLONING_STATES else "set: still to be cleared"


def _unrecorded(unrecorded: Unrecorded) -> RenderableType:
    """A line for each record that the journal is yet to get; of many faults the first ones."""
    lines = [
        f"{fault.side} fault: {fault_words(fault.operation, fault.cause, fault.offset)}, detected {fault.detected_at}"
        for fault in unrecorded.faults[:_FAULT_LINES_MAX]
    ]
    if (more := len(unrecorded.faults) - _FAULT_LINES_MAX) > 0:
        lines.append(f"{more} faults more")
    lines += [
        f"decision {each.decision}: {each.state or 'removed'}, by {each.trigger}"
        for each in unrecorded.decisions
    ]
    if unrecorded.flag_clear:
        lines.append("that the error flag is clear")
    return Text("\n".join(map(plain, lines)) or "nothing", style="yellow" if lines else "")


def _allowed(status: MigrationStatus) -> str:
    allowed = ", ".join(map(plain, status.allowed))
    if status.journal_condition is not JournalCondition.SOUND and status.host_answers:
        why = f"the journal {WORDS[status.journal_condition]}"
        return f"{allowed}; all else is refused: {why}" if allowed else f"nothing: {why}"
    return allowed or _nothing(status)


def _nothing(status: MigrationStatus) -> str:
    if status.source_of_status is not StatusSource.JOURNAL:
        return "nothing: commands go by NATS"
    if not status.host_answers:
        return "nothing: its host does not answer"
    return "nothing: the volume is closed" if status.host_error is not None else "nothing"


def _copy_fields(status: MigrationStatus) -> Iterable[tuple[str, RenderableType]]:
    if status.synced_bytes is not None:
        yield "in sync", bar_text(status.synced_bytes, status.size_bytes)
    pace = _pace(_of_copy(status, status.synced_bytes or 0))
    yield "copier", Text(pace, style="yellow" if status.paused else "")
    yield from _throttle_field(status)


def _resync_fields(status: MigrationStatus) -> Iterable[tuple[str, RenderableType]]:
    """What the next sync copies, and why it is everything; of no interest before the first one, or while writes are cloned."""
    if status.resync_bytes is None or not status.attempt or status.state is not State.SETUP:
        return
    if status.full_resync_because is None:
        share = f"{bytes_text(status.resync_bytes)} of {bytes_text(status.size_bytes)}"
        yield "resync", f"{share}: where the sides may differ; commit then wants a verify"
    else:
        yield "resync", f"everything, {bytes_text(status.resync_bytes)}: {plain(status.full_resync_because)}"


def _verify_fields(status: MigrationStatus) -> Iterable[tuple[str, RenderableType]]:
    if (comparison := comparison_under_way(status.verification)) is not None:
        yield "compared", bar_text(comparison.compared_bytes, status.size_bytes)
        pace = _pace(_of_comparison(status, comparison))
        yield "verify", Text(pace, style="yellow" if status.paused else "")
        yield from _throttle_field(status)
    elif (ended := status.verification) is not None and ended.outcome is not Outcome.EQUAL:
        yield "verify", Text(plain(f"{ended.outcome}: {ended.detail}"), style="yellow")
    if status.authority is Side.TARGET or status.state not in CLONING_STATES:
        return  # writes go to one side alone: what was found equal is not any more, and no commit asks for it
    if status.verified_at is not None:
        yield "verified", f"{plain(status.verified_at)}: both sides are equal"
    elif status.needs_verify:
        yield "verified", Text("not yet: the last sync was partial, so commit wants it", style="yellow")


def _throttle_field(status: MigrationStatus) -> Iterable[tuple[str, RenderableType]]:
    if status.throttle_bytes_per_s is not None:
        yield "throttle", rate_text(status.throttle_bytes_per_s)


def _device(uri: str, identity: DeviceIdentity) -> str:
    return f"{plain(uri)}  ({identity.kind}, {bytes_text(identity.size_bytes)})"


def _routing(routing: RoutingView) -> str:
    writes, flushes = (" and ".join(sorted(sides)) for sides in (routing.writes, routing.flushes))
    return f"reads from {routing.reads}, writes to {writes}, flushes to {flushes}"


def _authority(status: MigrationStatus) -> str:
    if status.authority is Side.TARGET and status.state in CLONING_STATES:
        return "target: the source has failed and misses writes; `cutover commit` leads out"
    return status.authority.value


def _clients(status: MigrationStatus) -> str:
    if not status.connections:
        return "none" if status.host_answers else _NOT_KNOWN
    return ", ".join(
        f"{plain(client.peer)} (since {plain(client.connected_at)})" for client in status.connections
    )


def _host(status: MigrationStatus) -> RenderableType:
    if status.host_error is not None:
        return Text(f"{plain(status.host)}: {plain(status.host_error)}", style="red")
    if not status.host_answers:
        return Text(f"{plain(status.host)}: does not answer", style="red")
    return f"{plain(status.host)} ({plain(status.io_engine or 'unknown engine')})"


def _faults(status: MigrationStatus) -> RenderableType:
    current, all_of_them = len(current_faults(status)), len(status.faults)
    if not all_of_them:
        return "none"
    earlier = f", {all_of_them - current} in earlier ones" if all_of_them > current else ""
    where = "; see `cutover faults`" if status.source_of_status is StatusSource.JOURNAL else ""
    return Text(f"{current} in this attempt{earlier}{where}", style="red" if current else "")


def faults_table(faults: Sequence[FaultView]) -> RenderableType:
    """The fault log, oldest first."""
    if not faults:
        return Text("No device fault is recorded.")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in (
        "DETECTED",
        "MIGRATION",
        "ATTEMPT",
        "STATE",
        "SIDE",
        "OPERATION",
        "CAUSE",
        "WHERE",
        "RECORDED",
    ):
        table.add_column(heading, overflow="fold")
    for fault in faults:
        table.add_row(
            plain(fault.detected_at),
            Text(plain(fault.migration), style="bold"),
            str(fault.attempt),
            state_text(fault.state),
            fault.side.value,
            plain(fault.operation),
            Text(plain(fault.cause), style="red"),
            fault_place(fault.offset, fault.length),
            plain(fault.recorded_at) if fault.recorded_at else Text("not yet", style="yellow"),
        )
    return table


def fault_place(offset: int | None, length: int | None) -> str:
    """Where on the device a fault happened."""
    if offset is None:
        return "-"
    return f"{length} bytes at {offset}" if length is not None else f"at {offset}"
