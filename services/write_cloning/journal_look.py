"""Whether the journal holds what a migration's host relied on, as it was found when somebody looked last."""

import logging

from services.write_cloning.keeper import Keeper
from services.write_cloning.reporter import UnsoundJournal, sound_ledger
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.witness import Witness
from shared.logs.about import about
from shared.messages.admission import GivenAway
from shared.migration.condition import JournalCondition, condition_when_refused
from shared.migration.ledger import Ledger
from shared.migration.records import StateRecord
from shared.migration.refusals import Refusal

log = logging.getLogger(__name__)


def has_ended(ledger: Ledger, uuid: str) -> bool:
    """Whether the journal tells that the migration of this UUID was cleaned up or given up."""
    return ledger.has_had(uuid) and ledger.uuid != uuid


def word_unknown_to(witness: Witness, ledger: Ledger) -> int:
    """The number of an operator's decision that the host has not been admitted by; 0 where there is none.

    It was recorded while the host was opening the volume by what the journal held before, or had it open.
    """
    adoption = ledger.adoption
    if adoption is None or not isinstance(adoption.record, StateRecord) or ledger.uuid != witness.uuid:
        return 0
    word = adoption.record
    is_another = (word.state, word.authority, word.attempt) != (
        witness.state,
        witness.authority,
        witness.attempt,
    )
    is_unknown = word.decision > witness.decision or (word.decision == witness.decision and is_another)
    return word.decision if is_unknown else 0


class JournalLook:
    """That of one migration. Startup has seen to it before the migration begins."""

    def __init__(self, keeper: Keeper, around: Surroundings) -> None:
        """Begin with one that is whole."""
        self._keeper = keeper
        self._around = around
        self.trouble = ""  # why it is not what was relied on, while it is not
        self.condition = JournalCondition.SOUND  # in a word
        self.given_away: GivenAway | None = None  # which host has it, where the condition is that
        self.is_over = False  # it tells of the migration's end
        self.unknown_word = (
            0  # an operator's decision that this run was not admitted by, see `word_unknown_to`
        )

    async def again(self) -> None:
        """Look. While it is not what was relied on, nothing is decided that can wait."""
        try:
            await self.ledger()
        except Refusal as refusal:  # of one that is away nothing is known, and decisions do not wait for it
            log.debug("the journal is not looked at: %s", refusal.message, extra=self._about())

    async def ledger(self) -> Ledger:
        """Look, and return what the journal holds.

        Raises:
            Refusal: it is away, or not what was relied on.
        """
        try:
            ledger = await sound_ledger(self._around, self._keeper.witness)
        except Refusal as refusal:
            condition = refusal.condition if isinstance(refusal, UnsoundJournal) else None
            condition = condition or condition_when_refused(refusal.code)
            if condition is not None:
                if not self.trouble:
                    log.critical(refusal.message, extra=self._about())
                self.trouble, self.condition = refusal.message, condition
                self.given_away = refusal.given if isinstance(refusal, UnsoundJournal) else None
            raise
        if self.trouble:
            log.warning("the journal is whole again", extra=self._about())
        self.trouble, self.condition = "", JournalCondition.SOUND
        self.is_over = has_ended(ledger, self._keeper.witness.uuid)
        self.unknown_word = word_unknown_to(self._keeper.witness, ledger)
        return ledger

    def _about(self) -> dict[str, object]:
        return about(self._keeper.witness.migration)
