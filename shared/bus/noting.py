"""A journal that notes what it reads for the log: of each migration, which attempt it is in and which host has it."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from shared.bus.interface import Journal
from shared.logs.about import Whereabouts
from shared.migration.ledger import Entry, Ledger, Tail
from shared.migration.records import AnyRecord
from shared.migration.refusals import Refusal

NOTED_MAX = 10_000  # migrations; beyond that the one that was noted first is forgotten


class NotingJournal:
    """Implements `Journal` over another one. Nothing is decided on what it notes."""

    def __init__(self, journal: Journal) -> None:
        """Begin with nothing noted."""
        self._journal = journal
        self._noted: OrderedDict[str, Whereabouts] = OrderedDict()

    def whereabouts(self, migration: str) -> Whereabouts:
        """What was noted last."""
        return self._noted.get(migration, Whereabouts())

    async def read(self, migration: str) -> Ledger:
        """See `Journal`."""
        ledger = await self._journal.read(migration)
        self._note_read(ledger)
        return ledger

    async def read_living(self) -> Mapping[str, Ledger | Refusal]:
        """See `Journal`."""
        found = await self._journal.read_living()
        for each in found.values():
            if isinstance(each, Ledger):
                self._note_read(each)
        return found

    async def append(self, record: AnyRecord, tail: Tail) -> Entry:
        """See `Journal`."""
        entry = await self._journal.append(record, tail)
        self._note(record.migration, Whereabouts(record.attempt, record.host))
        return entry

    async def migrations(self) -> Sequence[str]:
        """See `Journal`."""
        return await self._journal.migrations()

    def _note_read(self, ledger: Ledger) -> None:
        if ledger.exists:
            self._note(ledger.migration, Whereabouts(ledger.attempt, ledger.host))

    def _note(self, migration: str, whereabouts: Whereabouts) -> None:
        self._noted.pop(migration, None)
        if len(self._noted) >= NOTED_MAX:
            self._noted.popitem(last=False)
        self._noted[migration] = whereabouts
