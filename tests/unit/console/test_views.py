"""What people are shown of a status."""

from dataclasses import replace

import pytest

from services.console.listing import is_well, list_table
from services.console.views import bar_text, status_line, status_view
from shared.messages.status import Outcome, UnlistedMigration
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.drawing import drawn
from tests.support.staged import view
from tests.support.statuses import SIZE_BYTES, comparison, fault, status


def test_the_bar_says_all_only_when_all_is_there() -> None:
    assert bar_text(SIZE_BYTES - 1, SIZE_BYTES).plain.endswith(" 99.9 %")
    assert bar_text(SIZE_BYTES, SIZE_BYTES).plain.endswith("100.0 %")


def test_a_line_while_copying_has_rate_rest_and_end() -> None:
    line = status_line(
        status(
            state=State.SYNCING, attempt=1, synced_bytes=SIZE_BYTES // 4, remaining_bytes=SIZE_BYTES // 4 * 3,
            rate_bytes_per_s=float(48 << 20), eta_s=8.0, synced_percent=25.0,
        )
    ).plain  # fmt: skip
    assert "25.0 % of 512 MiB" in line
    assert "384 MiB left, 48 MiB/s, 8 s to go" in line
    assert "faults 0" in line


COPYING = status(
    state=State.SYNCING, attempt=1, synced_bytes=SIZE_BYTES // 4, remaining_bytes=SIZE_BYTES // 4 * 3,
    rate_bytes_per_s=48.3 * (1 << 20), eta_s=3725.0, synced_percent=25.0,
)  # fmt: skip


COMPARING = status(state=State.TARGET_SELECTED, attempt=1, verification=comparison(), eta_s=None)


def test_a_line_while_comparing_has_rate_rest_and_end() -> None:
    line = status_line(COMPARING).plain
    assert "target-selected  comparing" in line
    assert "25.0 % of 512 MiB" in line
    assert "384 MiB left, 48 MiB/s, 8 s to go" in line
    assert "paused" in status_line(replace(COMPARING, paused=True)).plain


def test_what_came_of_a_comparison_is_shown() -> None:
    assert "25.0 %" in drawn(status_view(COMPARING))
    ended = replace(COMPARING, verification=comparison(Outcome.INCOMPLETE, detail="the host stopped"))
    assert "incomplete: the host stopped" in drawn(status_view(ended))
    equal = replace(COMPARING, verification=comparison(Outcome.EQUAL), verified_at="2026-01-31T12:00:00Z")
    assert "2026-01-31T12:00:00Z: both sides are equal" in drawn(status_view(equal))
    assert "commit wants it" in drawn(status_view(replace(COMPARING, verification=None, needs_verify=True)))


@pytest.mark.parametrize("columns", range(1, 140))
def test_a_live_line_fits_the_terminal(columns: int) -> None:
    long = replace(COPYING, name="x" * 63, host_answers=False, journal_pending=True, faults=(fault(),))
    assert status_line(COPYING, columns).cell_len <= columns
    assert status_line(long, columns).cell_len <= columns


def test_a_live_line_drops_what_matters_least() -> None:
    assert status_line(COPYING, 80).plain == (
        "vol1  syncing  ━━━━━━──────────────────  25.0 %, 48.3 MiB/s, 1 h 02 min to go"
    )
    assert status_line(COPYING, 50).plain == "vol1  syncing  25.0 %, 1 h 02 min to go"
    assert status_line(COPYING, 30).plain == "vol1  syncing  25.0 %"
    assert status_line(COPYING, 200).plain == status_line(COPYING).plain
    assert "faults 1" in status_line(replace(COPYING, faults=(fault(),)), 40).plain


def test_only_faults_of_this_attempt_count() -> None:
    line = status_line(
        status(state=State.SYNCING, attempt=2, faults=(fault(attempt=1), fault(attempt=2)))
    ).plain
    assert "faults 1" in line


def test_a_host_that_is_away_is_said() -> None:
    away = status(host_answers=False, synced_bytes=None, remaining_bytes=None, rate_bytes_per_s=None, paused=None,
                  synced_percent=None, io_engine=None, export_uri=None)  # fmt: skip
    view = drawn(status_view(away))
    assert view.count("not known: the host does not answer") == 2, "of its export and its clients"
    assert "the journal's last record" in view
    assert "(away)" in drawn(list_table([away]))


def test_a_lost_source_names_the_way_out() -> None:
    lost = status(state=State.TARGET_SELECTED, attempt=1, authority=Side.TARGET)
    assert "cutover commit" in drawn(status_view(lost))


def test_an_empty_list_says_how_to_begin() -> None:
    assert "cutover setup" in drawn(list_table([]))


def test_a_list_ends_with_what_is_to_be_looked_at_each_once() -> None:
    warned = status(warnings=("vol1: no room.",))
    shown = drawn(list_table((warned, replace(warned, name="vol2"), status())))
    assert shown.count("warning  vol1: no room.") == 1


TROUBLE = (
    "vol1: the application gets errors: 7 requests failed since T, the last at T2: source read at 0: EIO."
)


def test_application_that_gets_errors_is_told_first_and_once() -> None:
    """The volume is open, the journal sound, and there is no fault: nothing else would tell."""
    troubled = status(application_trouble=TROUBLE, warnings=(TROUBLE,))
    assert not is_well(troubled)
    assert is_well(status())
    shown = drawn(list_table((status(name="vol2"), troubled)))
    assert shown.count(TROUBLE) == 1
    assert "open, errors" in shown
    assert "the application gets errors" in status_line(troubled).plain
    assert TROUBLE in drawn(status_view(troubled))


def test_application_that_gets_errors_is_told_where_the_journal_has_lost_the_volume() -> None:
    lost = UnlistedMigration(
        name="vol1",
        uuid="u",
        journal_condition=JournalCondition.UNKNOWN,
        state=State.SETUP,
        attempt=0,
        authority=Side.SOURCE,
        host="h1",
        host_answers=True,
        host_error=None,
        source="/a",
        target="/b",
        export_uri=None,
        warnings=("The journal does not know it.",),
        view=view(application_trouble=TROUBLE),
        as_of="2026-11-29T12:00:00Z",
    )
    assert TROUBLE in drawn(list_table([lost]))


@pytest.mark.parametrize("state", [State.SETUP, State.COMMITTED])
def test_what_was_found_equal_is_told_only_while_writes_go_to_both(state: State) -> None:
    once = replace(COMPARING, verification=None, verified_at="2026-01-31T12:00:00Z")
    for told in (once, replace(COMPARING, verification=None, needs_verify=True)):
        assert "verified" in drawn(status_view(told))
        assert "verified" not in drawn(status_view(replace(told, state=state)))
        assert "verified" not in drawn(status_view(replace(told, authority=Side.TARGET))), (
            "the source misses writes"
        )


def test_nothing_is_allowed_where_the_host_does_not_answer_and_that_is_why() -> None:
    assert "nothing: its host does not answer" in drawn(status_view(status(host_answers=False, allowed=())))


def test_a_list_of_regions_that_is_cut_says_so() -> None:
    some, many = (replace(COPYING, unreadable_regions=tuple(range(count))) for count in (15, 16))
    assert "perhaps more" not in drawn(status_view(some))
    assert "14, 15, and perhaps more" in " ".join(drawn(status_view(many)).split())
