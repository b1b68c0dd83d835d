"""Appending what is decided on the chain as it is: read, decide, append; all again when somebody was faster."""

import logging
from collections.abc import Callable

from shared.bus.interface import Journal
from shared.logs.about import about
from shared.migration.ledger import Entry, Ledger
from shared.migration.records import AnyRecord
from shared.migration.refusals import Code, Refusal
from shared.migration.telling import words_of

_log = logging.getLogger(__name__)

ROUNDS_MAX = 8


async def append_decided(
    journal: Journal, migration: str, decide: Callable[[Ledger], AnyRecord | Entry]
) -> tuple[Entry, Ledger]:
    """Append the record that `decide` makes of the ledger, and return it with the ledger that it was decided on.

    `decide` refuses by raising, and returns an entry when what was asked for is in the journal already.

    Raises:
        Refusal: of `decide`; of the journal; `busy` when others were faster `ROUNDS_MAX` times.
    """
    for _round in range(ROUNDS_MAX):
        ledger = await journal.read(migration)
        decided = decide(ledger)
        if isinstance(decided, Entry):
            return decided, ledger
        try:
            entry = await journal.append(decided, ledger.tail)
        except Refusal as refusal:
            if refusal.code is not Code.BUSY:
                raise
        else:
            about_it = about(migration, decided.attempt, host=decided.host)
            _log.info("recorded: %s", words_of(decided), extra=about_it)
            return entry, ledger
    raise Refusal(Code.BUSY, f"Others keep recording of {migration!r}; ask again.")
