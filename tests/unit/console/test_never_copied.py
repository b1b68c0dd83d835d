"""`cutover migrate` ends where the copy goes on and can come to nothing; it waited for that for ever."""

from services.console.migrating import _why_never_copied
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.statuses import fault, status


def test_source_that_cannot_be_read_is_never_copied() -> None:
    stuck = status(state=State.SYNCING, attempt=1, unreadable_regions=(7,))
    assert "regions that cannot be read" in str(_why_never_copied(stuck))


def test_source_that_could_not_be_flushed_is_never_in_sync() -> None:
    stuck = status(state=State.SYNCING, attempt=1, faults=(fault(side=Side.SOURCE, operation="flush"),))
    assert _why_never_copied(stuck)


def test_copy_that_goes_on_and_one_that_is_over_are_waited_for_as_ever() -> None:
    assert _why_never_copied(status(state=State.SYNCING, attempt=1)) is None
    over = status(state=State.SOURCE_SELECTED, attempt=1, unreadable_regions=(7,))
    assert _why_never_copied(over) is None
