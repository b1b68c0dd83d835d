"""The replay of one migration, in the order that keeps data safe: is the journal sound, catch up, verdict, remedies.

Every step reads the journal anew, and may be repeated: after a crash at any point the next startup comes to the same
verdict or to a more careful one.
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from services.startup.evidence import (
    flag_counts_as_set,
    is_over,
    is_set_in_vain,
    is_sound,
    is_superseded,
    refuse_contradiction,
    refuse_foreign,
    refuse_given_away,
    refuse_older_copy,
    refuse_taken_over,
    refuse_unseen,
    refuse_without_witness,
)
from services.startup.owners import Owners
from shared.bus.interface import Journal
from shared.messages.admission import Admission, GivenAway, Try, WitnessView
from shared.messages.recording import StoredReply
from shared.messages.standing import stale
from shared.migration.devices import Side
from shared.migration.ledger import Ledger
from shared.migration.records import UNCLEAN_SHUTDOWN, Kind
from shared.migration.refusals import Code, InvariantError, Refusal
from shared.migration.states import CLONING_STATES, Flag
from shared.migration.verdicts import Remedy, Verdict, VerdictFacts, judge

_OF_ANOTHER = "its host has the witness of an earlier migration of that name alone"


@dataclass(frozen=True, slots=True)
class Removed:
    """The migration is over: its witness may be forgotten."""

    migration: str


class Replay:
    """Replays migrations for one run of one host."""

    def __init__(
        self,
        journal: Journal,
        owners: Owners,
        *,
        host: str,
        tried: Collection[Try],
        given_away: Collection[GivenAway],
        refuse_others: Callable[[], Awaitable[None]],
    ) -> None:
        """`refuse_others` raises where a run of the host serves by now, which another startup has admitted meanwhile."""
        self._journal = journal
        self._owners = owners
        self._refuse_others = refuse_others
        self._host = host
        self._tried = tried  # that the state directory knows of
        self._given_away = {each.uuid: each for each in given_away}  # likewise

    async def with_witness(self, witness: WitnessView) -> Admission | Removed:
        """Judge a migration by journal and witness.

        Raises:
            Refusal: it stays closed, why, and what would have admitted it.
        """
        name = witness.migration
        ledger = await self._journal.read(name)
        if is_over(witness, ledger):
            if ledger.exists and ledger.host == self._host:  # another one of that name, as after a takeover
                return await self.without_witness(name, _OF_ANOTHER)
            return Removed(name)
        refuse_given_away(self._given_away.get(ledger.uuid or witness.uuid), ledger, self._host)
        if is_superseded(witness, ledger, self._host):
            return await self._judged(ledger, None)
        refuse_foreign(witness, ledger, self._host)
        refuse_taken_over(ledger, self._host, witness)
        refuse_older_copy(witness, ledger, self._tried)
        refuse_unseen(witness, ledger)
        ledger = await self._sound(witness, ledger)
        ledger = await self._caught_up(witness, ledger)
        if witness.state is None and is_over(witness, ledger):
            return Removed(name)
        refuse_contradiction(witness, ledger)
        return await self._judged(ledger, witness)

    async def without_witness(self, migration: str, why: str) -> Admission:
        """Judge a migration by the journal alone.

        Raises:
            Refusal: it stays closed, why, and what would have admitted it.
        """
        ledger = await self._journal.read(migration)
        if not ledger.exists and ledger.broken is None:
            raise Refusal(
                Code.NOT_ADMITTED,
                f"{migration!r} stays closed: {why}, and the journal does not know it; its witness would admit it.",
            )
        refuse_given_away(self._given_away.get(ledger.uuid or ""), ledger, self._host)
        refuse_taken_over(ledger, self._host, None)
        refuse_without_witness(ledger, why)
        return await self._judged(ledger, None)

    # Step 1

    async def _sound(self, witness: WitnessView, ledger: Ledger) -> Ledger:
        if is_sound(witness, ledger):
            return ledger
        reason = ledger.broken or "the journal has gone back: it lacks the record that the witness relied on"
        return await self._longer(ledger, await self._owners.repair(witness, ledger, reason))

    # Step 2

    async def _caught_up(self, witness: WitnessView, ledger: Ledger) -> Ledger:
        """Faults first, then the decision that they led to; but a migration's first decision comes before all.

        The journal takes no fault of an attempt that is over. Where it has lost the record of one no verdict misses it.
        """
        if not ledger.exists:
            ledger = await self._longer(ledger, await self._owners.record_decision(witness, ledger))
        stored = [
            await self._owners.record_fault(fault, ledger)
            for fault in witness.faults
            if fault.attempt >= ledger.attempt and ledger.operation(fault.operation_id, Kind.FAULT) is None
        ]
        if ledger.decision < witness.decision:
            stored.append(await self._owners.record_decision(witness, ledger))
        return await self._longer(ledger, *stored)

    async def _longer(self, before: Ledger, *stored: StoredReply) -> Ledger:
        """The journal as it is now, with what it held before and what the owners have stored since: it is judged by that.

        Raises:
            Refusal: (`busy`) it has gone back meanwhile. Whoever asks again has it judged, and repaired, anew.
        """
        ledger = await self._journal.read(before.migration)
        needed = (before.tail.digest, *(each.digest for each in stored))
        if ledger.broken is not None or not all(map(ledger.contains, needed)):
            raise Refusal(
                Code.BUSY, f"The journal of {before.migration!r} has gone back while it was judged."
            )
        return ledger

    async def _still_there(self, before: Ledger, *stored: StoredReply) -> Ledger:
        """The same of a migration that nobody has removed meanwhile, and of which nobody else has recorded anything.

        Whoever was admitted by another startup meanwhile has it open by now: what was judged before is no verdict on that.

        Raises:
            Refusal: (`busy`) as `_longer`; or it was given up. Whoever asks again is told so. (`stale`) others have recorded
                something.
        """
        ledger = await self._longer(before, *stored)
        if ledger.uuid != before.uuid:
            raise Refusal(Code.BUSY, f"{before.migration!r} was removed while it was judged.")
        own = {each.digest for each in stored}
        if any(each.record.index > before.tail.index and each.digest not in own for each in ledger.entries):
            raise stale(before.migration, "something was recorded while it was judged")
        return ledger

    # Step 3

    async def _judged(self, ledger: Ledger, witness: WitnessView | None) -> Admission:
        verdict = judge(_verdict_facts(ledger, witness))
        if not verdict.admit:
            raise Refusal(
                Code.NOT_ADMITTED,
                f"{ledger.migration!r} stays closed: {verdict.reason} (state {ledger.state}, authority "
                f"{ledger.authority}); a journal and a witness without that would admit it.",
            )
        for remedy in verdict.remedies:
            stored = await self._remedy(remedy, verdict, ledger, witness)
            ledger = await self._still_there(ledger, *stored)
        if ledger.flag is Flag.SET and ledger.state not in CLONING_STATES:
            # Left where a remedy before it has ended the cloning, and with it what the flag stood for.
            ledger = await self._still_there(ledger, await self._clear_flag(ledger))
        if not self._owners.has_recorded(ledger):
            ledger = await self._still_there(ledger, await self._owners.record_opening(ledger, verdict))
        return _admission(ledger, verdict, is_witness_believed=witness is not None)

    async def _remedy(
        self, remedy: Remedy, verdict: Verdict, ledger: Ledger, witness: WitnessView | None
    ) -> tuple[StoredReply, ...]:
        match remedy:
            case Remedy.RECORD_UNCLEAN:
                return (await self._owners.record_unclean(ledger),)
            case Remedy.ERROR_TRANSITION:
                return (await self._owners.record_error_transition(ledger, verdict),)
            case Remedy.SET_FLAG:
                if not is_set_in_vain(ledger, witness):
                    return (await self._owners.set_flag(ledger),)
                # Stored, but whoever asked for it may have been refused because what is stored is not durable (rule R2).
                return (await self._owners.confirm_flag(ledger),)
            case Remedy.CLEAR_FLAG:
                if ledger.flag is Flag.SET:
                    return (await self._clear_flag(ledger),)
        return ()

    async def _clear_flag(self, ledger: Ledger) -> StoredReply:
        # Asked anew: who was admitted while this judgement took its time may have set the flag, and clone.
        await self._refuse_others()
        return await self._owners.clear_flag(ledger)


def _verdict_facts(ledger: Ledger, witness: WitnessView | None) -> VerdictFacts:
    if ledger.state is None:
        raise InvariantError(f"{ledger.migration!r} is judged without a state")
    return VerdictFacts(
        state=ledger.state,
        authority=ledger.authority,
        flag_set=flag_counts_as_set(ledger, witness),
        target_fault=ledger.fault_count(Side.TARGET) > 0,
    )


def _admission(ledger: Ledger, verdict: Verdict, *, is_witness_believed: bool) -> Admission:
    if ledger.uuid is None or ledger.state is None or ledger.devices is None:
        raise InvariantError(f"{ledger.migration!r} is admitted without state or devices")
    is_set = ledger.flag is Flag.SET and ledger.flag_entry is not None
    return Admission(
        migration=ledger.migration,
        uuid=ledger.uuid,
        label=verdict.label,
        state=ledger.state,
        authority=ledger.authority,
        attempt=ledger.attempt,
        decision=ledger.decision,
        tail_digest=ledger.tail.digest,
        flag_digest=ledger.flag_entry.digest if is_set and ledger.flag_entry is not None else "",
        source_faults=ledger.fault_count(Side.SOURCE),
        target_faults=ledger.fault_count(Side.TARGET) - _unclean_stops(ledger),
        devices=ledger.devices,
        reason=verdict.reason,
        is_witness_believed=is_witness_believed,
    )


def _unclean_stops(ledger: Ledger) -> int:
    return sum(fault.cause == UNCLEAN_SHUTDOWN for fault in ledger.faults)
