"""The reporter: tells the journal's owners what the host has decided, again and again, until the journal holds it.

Faults and decisions go in the order in which they came, then the clear of the flag, which is asked for only when everything
else is stored and the journal is sound. The application never waits for any of this.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from services.write_cloning.keeper import Keeper
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.witness import Witness
from shared.logs.about import about
from shared.messages.admission import GivenAway
from shared.messages.recording import (
    ClearFlagRequest,
    DecisionRequest,
    FaultReport,
    Origin,
    RecordFaultRequest,
    StoredReply,
    decision_subject,
    record_subject,
)
from shared.messages.standing import given_away, gone_back, gone_back_to_another
from shared.messages.status import JournalWait
from shared.migration.condition import JournalCondition, condition_of
from shared.migration.ledger import Ledger
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag

log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.25
RETRY_MAX_S = 5.0
REQUEST_TIMEOUT_S = 5.0


class UnsoundJournal(Refusal):
    """The journal is not what the host relied on."""

    def __init__(self, condition: JournalCondition, message: str, given: GivenAway | None = None) -> None:
        """Say in a word, and in a sentence, what it is instead; and which host has it, where it names another."""
        super().__init__(Code.JOURNAL_UNSOUND, message)
        self.condition = condition
        self.given = given


class Reporter:
    """What one migration has to tell. `want_…` is called at any time; `run` is a task of the host."""

    def __init__(self, keeper: Keeper, around: Surroundings) -> None:
        """Begin with nothing to tell."""
        self._keeper = keeper
        self._around = around
        # However long the journal is away this stays short: faults are counted, and commands come by the same way as answers.
        self._untold: deque[FaultReport | DecisionRequest] = deque()
        self._clear = False
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self.trouble: str | None = None  # why the journal does not hold everything yet
        self._since = ""  # when it last held everything

    @property
    def is_settled(self) -> bool:
        """Whether the journal holds everything."""
        return self._settled.is_set()

    @property
    def unstored_faults(self) -> tuple[FaultReport, ...]:
        """Faults that the journal is not known to hold."""
        return tuple(told for told in self._untold if isinstance(told, FaultReport))

    @property
    def unstored_decisions(self) -> tuple[DecisionRequest, ...]:
        """Decisions that the journal is not known to hold."""
        return tuple(told for told in self._untold if isinstance(told, DecisionRequest))

    @property
    def owes_clear(self) -> bool:
        """Whether the flag is still to be cleared."""
        return self._clear

    @property
    def waiting(self) -> JournalWait | None:
        """What the journal is yet to be told, and what keeps it; None where it holds everything."""
        if self.is_settled:
            return None
        return JournalWait(what=", ".join(self._wanting()), why=self.trouble or "", since=self._since)

    def _wanting(self) -> Iterator[str]:
        if count := len(self.unstored_faults):
            yield "1 fault" if count == 1 else f"{count} faults"
        for each in self.unstored_decisions:
            yield f"decision {each.origin.decision} ({each.state or 'removed'})"
        if self._clear:
            yield "that the error flag is clear"

    def want_faults(self, *faults: FaultReport) -> None:
        """Have faults recorded."""
        self._untold.extend(faults)
        self._ask()

    def want_decision(self, decision: DecisionRequest) -> None:
        """Have a decision recorded."""
        self._untold.append(decision)
        self._ask()

    def want_clear(self) -> None:
        """Have the flag cleared, after everything else."""
        self._clear = True
        self._ask()

    async def settled(self, timeout_s: float | None) -> bool:
        """Wait until the journal holds everything; False when that takes longer. None waits for ever."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Report for ever. Cancelled when the host stops."""
        delay_s = RETRY_FIRST_S
        while True:
            await self._wake.wait()
            try:
                await self._report()
            except (Refusal, OSError) as trouble:
                self._note(trouble)
                await self._pause(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
            else:
                delay_s = RETRY_FIRST_S

    def _ask(self) -> None:
        if self.is_settled:
            self._since = self._around.clock.now_rfc3339()
        self._settled.clear()
        self._wake.set()

    def _note(self, trouble: Refusal | OSError) -> None:
        if isinstance(trouble, Refusal):
            message = trouble.message
        else:  # what is stored is told again until the witness knows it, too: that is harmless
            message = f"the witness cannot be written: {trouble.strerror or trouble}"
        if self.trouble != message:
            log.warning("not in the journal yet: %s", message, extra=self._about())
        self.trouble = message

    async def _pause(self, delay_s: float) -> None:
        # The wait ends early when something new is to be told, which is a sign that somebody waits.
        self._wake.clear()
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            self._wake.set()

    async def _report(self) -> None:
        while self._untold:
            await self._tell(self._untold[0])
            self._untold.popleft()
        if self._clear:
            await self._clear_flag()
            self._clear = False
            return
        if self.trouble is not None:
            log.info("the journal holds everything again", extra=self._about())
        self.trouble = None
        self._wake.clear()
        self._settled.set()

    async def _tell(self, untold: FaultReport | DecisionRequest) -> None:
        witness = self._keeper.witness
        if isinstance(untold, DecisionRequest):
            origin = replace(untold.origin, relies_on=witness.tail_digest)  # by now
            await self._store(
                decision_subject(witness.host, witness.migration), replace(untold, origin=origin)
            )
        else:
            request = RecordFaultRequest(origin=self._origin(untold.operation_id), fault=untold)
            await self._store(record_subject("fault", witness.host, witness.migration), request)

    async def _store(
        self, subject: str, request: RecordFaultRequest | DecisionRequest | ClearFlagRequest
    ) -> None:
        stored = await self._around.requests.request(
            subject, request, StoredReply, timeout_s=REQUEST_TIMEOUT_S
        )
        await self._keeper.rely_on(stored.index, stored.digest)

    async def _clear_flag(self) -> None:
        witness = self._keeper.witness
        ledger = await sound_ledger(self._around, witness)
        if ledger.flag is not Flag.SET or ledger.flag_entry is None:
            return
        if ledger.state is not witness.state or ledger.decision != witness.decision:
            raise Refusal(Code.BUSY, "the journal does not record this host's last decision yet")
        set_digest = ledger.flag_entry.digest
        await self._keeper.spend_flag(set_digest)
        request = ClearFlagRequest(
            origin=self._origin(f"{witness.uuid}:clear:{set_digest}"),
            set_digest=set_digest,
            tail_digest=ledger.tail.digest,
            faults=witness.faults,
        )
        await self._store(record_subject("flag-clear", witness.host, witness.migration), request)

    def _about(self) -> dict[str, object]:
        return about(self._keeper.witness.migration, self._keeper.witness.attempt)

    def _origin(self, operation_id: str) -> Origin:
        return origin_of(replace(self._keeper.witness, operation_id=operation_id))


def origin_of(witness: Witness) -> Origin:
    """Who speaks, of what, as the witness has it."""
    return Origin(
        migration=witness.migration,
        uuid=witness.uuid,
        attempt=witness.attempt,
        host=witness.host,
        run=witness.run,
        decision=witness.decision,
        operation_id=witness.operation_id,
        relies_on=witness.tail_digest,
    )


async def sound_ledger(around: Surroundings, witness: Witness) -> Ledger:
    """The journal of a migration, proved to be whole and to contain what the witness relied on.

    Raises:
        Refusal: `journal-unsound` when it has gone back, is damaged, or gives the migration to another host, or to a later run
            of this one; `journal-away`.
    """
    ledger = await around.journal.read(witness.migration)
    condition = condition_of(ledger, witness.uuid, witness.tail_digest, witness.host, witness.run)
    if condition is JournalCondition.SOUND:
        return ledger
    if ledger.broken is not None:
        raise UnsoundJournal(condition, f"The journal of {witness.migration} is damaged: {ledger.broken}.")
    if condition is JournalCondition.GIVEN_AWAY:
        message = f"{witness.migration} was given to host {ledger.host!r}."
        raise UnsoundJournal(condition, message, given_away(ledger, witness.host))
    if condition is JournalCondition.LATER_RUN:
        message = f"A later run of host {witness.host!r}, {ledger.run}, has {witness.migration}; this is run {witness.run}."
        raise UnsoundJournal(condition, message)
    if ledger.exists and ledger.host != witness.host and condition is JournalCondition.GONE_BACK:
        raise UnsoundJournal(condition, gone_back_to_another(ledger, witness.host).message)
    raise UnsoundJournal(condition, gone_back(witness.migration, f"host {witness.host!r}").message)
