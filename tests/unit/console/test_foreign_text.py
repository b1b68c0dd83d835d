"""Names and messages come from elsewhere: they are shown as they are, never obeyed."""

import pytest

from services.console.events import event_text, read_event
from services.console.listing import list_table
from services.console.views import faults_table, status_line, status_view
from shared.plain import plain
from tests.support.drawing import drawn
from tests.support.statuses import fault, status

HOSTILE = "/data/[red]a[/red]\x1b[2Jb\nc:smile:\u202e"
SHOWN = "/data/[red]a[/red]\\x1b[2Jb\\nc:smile:\\u202e"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Größe «1»", "Größe «1»"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\r\t", "a\\nb\\r\\t"),
        ("\u202eevil", "\\u202eevil"),
        ("\udc80", "\\udc80"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_no_view_interprets_a_device_name() -> None:
    hostile = status(
        source=HOSTILE, target=HOSTILE, host_error=HOSTILE, warnings=(HOSTILE,), export_uri=HOSTILE
    )
    assert drawn(status_view(hostile)).count(SHOWN) == 5
    assert drawn(list_table([hostile])).count(SHOWN) == 4
    assert "\x1b" not in drawn(status_line(hostile))


def test_no_fault_interprets_its_cause() -> None:
    hostile = fault(migration=HOSTILE)
    assert SHOWN in drawn(faults_table([hostile]))


def test_no_event_interprets_what_it_carries() -> None:
    payload = b'{"kind":"state","state":"\\u001b[2J","trigger":"[red]x[/red]","detail":"a\\nb"}'
    line = event_text(read_event("cutover.journal.vol1.state", payload, "now")).plain
    assert "\x1b" not in line
    assert "\n" not in line
    assert "[red]x[/red]" in line
