"""`cutover list`, drawn for people: a row for each migration, whoever tells of it, and below what somebody should look at."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.console.units import rate_text
from services.console.views import comparison_under_way, current_faults, state_text
from shared.messages.status import Listed, MigrationStatus, UnlistedMigration, application_trouble
from shared.migration.condition import WORDS, JournalCondition
from shared.migration.states import CLONING_STATES, State
from shared.plain import plain

_UNKNOWN = "-"
_WHOLE_PERCENT = 100.0


@dataclass(frozen=True, slots=True)
class _Column:
    """One column. One that is `telling` is there only where something is not as it should be."""

    heading: str
    is_telling: bool = False


_COLUMNS = (
    _Column("NAME"),
    _Column("STATE"),
    _Column("ATTEMPT"),
    _Column("IN SYNC"),
    _Column("RATE"),
    _Column("FAULTS"),
    _Column("HOST"),
    _Column("VOLUME", is_telling=True),
    _Column("JOURNAL", is_telling=True),
    _Column("SOURCE → TARGET"),
)


def list_table(listed: Sequence[Listed]) -> RenderableType:
    """One row for each migration."""
    if not listed:
        return Text("No migration. `cutover setup NAME --source URI --target URI` begins one.")
    is_telling = any(not is_well(each) or _is_closed(each) for each in listed)
    shown = [column for column in _COLUMNS if is_telling or not column.is_telling]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in shown:
        table.add_column(column.heading, overflow="fold")
    for each in listed:
        cells = dict(zip(_COLUMNS, _cells(each), strict=True))
        table.add_row(*(cells[column] for column in shown))
    return Group(table, *_below(listed))


def _cells(each: Listed) -> tuple[Text, ...]:
    """Of one row, for each column there is."""
    return (
        Text(plain(each.name), style="bold"),
        state_text(each.state) if each.state is not None else Text(_UNKNOWN),
        Text(_UNKNOWN if each.attempt is None else str(each.attempt)),
        Text(_percent(each)),
        _rate(each),
        _fault_count(each),
        _host(each),
        _volume(each),
        _journal(each),
        Text(f"{plain(each.source)} → {plain(each.target)}" if each.source else _UNKNOWN),
    )


def _below(listed: Sequence[Listed]) -> Iterable[Text]:
    for each in listed:
        if _is_closed(each):
            yield Text(f"closed   {plain(each.name)}: {plain(each.host_error or '')}", style="red")
    said = {f"{each.name}: {each.host_error}" for each in listed if _is_closed(each)}
    for each in listed:
        if trouble := application_trouble(each):
            said.add(trouble)
            yield Text(f"errors   {plain(trouble)}", style="red")
    # A host's warnings come with each of its migrations.
    for warning in dict.fromkeys(
        warning for each in listed for warning in each.warnings if warning not in said
    ):
        yield Text(f"warning  {plain(warning)}", style="yellow")


def is_well(each: Listed) -> bool:
    """Whether its host can rely on the journal, and the application gets no errors, as far as is known."""
    return _is_sound(each) and not application_trouble(each)


def _is_closed(each: Listed) -> bool:
    return each.host_answers and each.host_error is not None


def _is_sound(each: Listed) -> bool:
    return each.journal_condition is JournalCondition.SOUND


def _volume(each: Listed) -> Text:
    if not each.host_answers:
        return Text("not known")
    if _is_closed(each):
        return Text("closed", style="bold red")
    return Text("open, errors", style="bold red") if application_trouble(each) else Text("open")


def _journal(each: Listed) -> Text:
    return Text(WORDS[each.journal_condition], style="" if _is_sound(each) else "bold red")


def _host(each: Listed) -> Text:
    if not each.host:
        return Text("not known", style="red")
    return Text(plain(each.host)) if each.host_answers else Text(f"{plain(each.host)} (away)", style="red")


def _fault_count(each: Listed) -> Text:
    if isinstance(each, UnlistedMigration):
        return Text(_UNKNOWN)  # the log is in the journal
    count = len(current_faults(each))
    return Text(str(count), style="bold red" if count else "dim")


def _rate(each: Listed) -> Text:
    told = each.view if isinstance(each, UnlistedMigration) else each
    if told is None or told.rate_bytes_per_s is None:
        return Text(_UNKNOWN)
    comparing = comparison_under_way(told.verification)
    if told.paused and (told.state is State.SYNCING or comparing is not None):
        return Text("paused", style="yellow")
    return Text(rate_text(told.rate_bytes_per_s) if told.rate_bytes_per_s else _UNKNOWN)


def _percent(each: Listed) -> str:
    if isinstance(each, MigrationStatus):
        share = each.synced_percent
    elif each.view is not None and each.view.size_bytes:
        share = _WHOLE_PERCENT * each.view.synced_bytes / each.view.size_bytes
    else:
        share = None
    if each.state not in CLONING_STATES or share is None:
        return _UNKNOWN
    return f"{int(share * 10) / 10:.1f} %"
