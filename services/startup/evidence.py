"""What journal and witness prove together, and where they contradict each other. Pure; when in doubt, it refuses."""

from collections.abc import Collection, Iterator

from services.startup.owners import is_own, is_own_set
from shared.messages.admission import GivenAway, Try, WitnessView
from shared.messages.standing import given_away, is_from_before
from shared.migration.devices import Side
from shared.migration.ledger import Entry, Ledger
from shared.migration.records import FlagClearRecord, RepairRecord, StateRecord, TombstoneRecord
from shared.migration.refusals import Code, Refusal
from shared.migration.states import CLONING_STATES, Flag, State


def is_sound(witness: WitnessView, ledger: Ledger) -> bool:
    """Whether the chain is whole and contains the record that the witness relied on."""
    return ledger.broken is None and ledger.contains(witness.tail_digest)


def is_over(witness: WitnessView, ledger: Ledger) -> bool:
    """Whether the migration of this witness was cleaned up, so that the witness may be forgotten."""
    has_tombstone = any(
        isinstance(entry.record, TombstoneRecord) and entry.record.uuid == witness.uuid
        for entry in ledger.entries
    )
    was_never_recorded = witness.state is None and not ledger.exists and is_sound(witness, ledger)
    return has_tombstone or was_never_recorded


def is_superseded(witness: WitnessView, ledger: Ledger, host: str) -> bool:
    """Whether an operator's word stands in place of this witness, which knows nothing of it."""
    adoption = ledger.adoption
    if adoption is None or ledger.broken is not None or ledger.host != host:
        return False
    is_foreign = (witness.uuid, witness.host) != (ledger.uuid, host)
    return is_foreign or witness.decision < adoption.record.decision


def refuse_unseen(witness: WitnessView, ledger: Ledger) -> None:
    """Refuse a witness that could not be read when an operator gave a word, or was written since, and has decided unheard.

    The word is numbered above all that was known then. What is numbered as high and relied on an earlier record was not.

    Raises:
        Refusal: (`not-admitted`) saying what each of them says.
    """
    adoption = ledger.adoption
    if adoption is None or not is_sound(witness, ledger):
        return
    relied_on = next((entry for entry in ledger.entries if entry.digest == witness.tail_digest), None)
    if relied_on is not None and relied_on.record.index < adoption.record.index:
        raise _closed(
            witness,
            f"an operator's word was recorded that does not know its witness, and that has decided "
            f"{witness.state or 'its removal'} with authority {witness.authority} since the journal heard of it last",
            f"`cutover adopt {witness.migration}` once more, knowing that, would admit it",
        )


def refuse_foreign(witness: WitnessView, ledger: Ledger, host: str) -> None:
    """Refuse a witness of another host, or of another migration of the name.

    Raises:
        Refusal: (`not-admitted`) saying of which.
    """
    if witness.host != host:
        raise _closed(witness, f"its witness is of host {witness.host!r}", "that host would admit it")
    if ledger.exists and ledger.uuid != witness.uuid:
        raise _closed(
            witness,
            f"the journal has a migration of that name with the UUID {ledger.uuid}, on host {ledger.host!r}",
            "the journal that has this one would admit it",
        )


class TakenOver(Refusal):
    """It was given to another host."""

    def __init__(self, given: GivenAway, host: str) -> None:
        """Name the host that has it, and what would admit it on this one."""
        super().__init__(
            Code.NOT_ADMITTED,
            f"{given.migration!r} stays closed: it was given to host {given.host!r}; `cutover adopt --host {host}` would admit "
            "it.",
        )
        self.given = given


def refuse_taken_over(ledger: Ledger, host: str, witness: WitnessView | None) -> None:
    """Refuse the host that an operator has taken the migration from, and one that never had it.

    A journal that lacks what the host's witness relied on may be from before it was given to this one. Only a word can tell:
    it may have been given on, or back, since.

    Raises:
        Refusal: (`not-admitted`) naming the host that has it.
    """
    given = given_away(ledger, host)
    if given is None:
        return
    if witness is not None and not is_sound(witness, ledger):
        raise _closed(
            ledger,
            f"by the journal host {ledger.host!r} has it, and that has gone back: it lacks the record that the witness of host "
            f"{host!r} relied on",
            f"the newer journal would admit it; so would `cutover adopt {ledger.migration} --host {host}`",
        )
    raise TakenOver(given, host)


def refuse_given_away(given: GivenAway | None, ledger: Ledger, host: str) -> None:
    """Refuse the host that was told that another one has it, by a journal from before that.

    Its witness may still be whole, and be all that this journal holds; but the other one has written since.

    Raises:
        Refusal: (`not-admitted`) naming the host that has it.
    """
    if given is None or (ledger.exists and ledger.host != host) or not is_from_before(given, ledger, host):
        return
    raise _closed(
        ledger,
        f"host {given.host!r} has it by an operator's word, and the journal is from before that: it has gone back",
        f"a word that knows that, `cutover adopt {ledger.migration} --host {host}`, would admit it",
    )


def refuse_older_copy(witness: WitnessView, ledger: Ledger, tried: Collection[Try]) -> None:
    """Refuse a witness from before the volume was last opened: what was decided since then is not in it.

    When that was the state directory tells. Where it does not, as where that file was lost, the journal does: startup leaves a
    record of each run that it admits, with the life of its process. Only those that the directory knows for tries do not
    count: nothing was opened in them. Version 0.1.0 recorded no lives, and its directories knew of no openings.

    Raises:
        Refusal: (`not-admitted`) saying of which run it is.
    """
    opened_run = witness.opened_run
    if opened_run is None:
        opened_run = max(_runs_admitted(witness, ledger, tried), default=witness.run)
    if opened_run > witness.run:
        raise _closed(
            witness,
            f"its witness is an old copy: of run {witness.run}, and run {opened_run} has had the volume open",
            "the newest witness would admit it",
        )


def refuse_contradiction(witness: WitnessView, ledger: Ledger) -> None:
    """Refuse when journal and witness, the one caught up with the other, do not tell the same.

    Raises:
        Refusal: (`not-admitted`) saying in what.
    """
    if ledger.devices != witness.devices:
        raise _closed(
            witness,
            "the journal records other devices than its witness",
            "the witness of those devices would admit it",
        )
    if ledger.decision > witness.decision:
        _refuse_unknown_decision(witness, ledger)
        return
    told = (ledger.state, ledger.authority, ledger.attempt)
    decided = (witness.state, witness.authority, witness.attempt)
    if told != decided:
        raise _closed(
            witness,
            f"the journal records {_words(told)} for decision {ledger.decision}, and its witness {_words(decided)}",
            "a witness that agrees with the journal would admit it",
        )


def flag_counts_as_set(ledger: Ledger, witness: WitnessView | None) -> bool:
    """Whether the stop before this start has to be taken for unclean.

    A clear counts when the witness knows that it was asked for: one that does not is older than the clear. A flag that
    startup itself set anew, for a run that never opened the migration, has nothing at stake: the witness would have been
    written in that run. And a flag that was never set proves nothing while writes are cloned.
    """
    if ledger.flag is Flag.CLEAR:
        return ledger.state in CLONING_STATES and not _knows_of_clear(witness, ledger.flag_entry)
    if ledger.flag is Flag.NEVER or ledger.flag_entry is None:
        return ledger.state in CLONING_STATES and ledger.authority is Side.SOURCE
    return not is_set_in_vain(ledger, witness)


def is_set_in_vain(ledger: Ledger, witness: WitnessView | None) -> bool:
    """Whether the flag in force was set by startup for a run that never opened the migration."""
    flag = ledger.flag_entry
    return (
        ledger.flag is Flag.SET
        and ledger.state in CLONING_STATES
        and flag is not None
        and witness is not None
        and witness.opened_run == witness.run  # so it is no old copy: no later run has had the volume open
        and is_own_set(flag)
        and witness.flag_digest != flag.digest
        and witness.run < flag.record.run
    )


def refuse_without_witness(ledger: Ledger, why: str) -> None:
    """Without a witness only what cannot have cloned since is admitted: never entered, committed, or adopted.

    Raises:
        Refusal: (`not-admitted`) naming the state and what would admit it.
    """
    was_never_entered = ledger.state is State.SETUP and ledger.attempt == 0 and ledger.flag is Flag.NEVER
    was_adopted = ledger.adoption is not None
    if ledger.broken is None and (was_never_entered or was_adopted or ledger.state is State.COMMITTED):
        return
    journal = f"is damaged ({ledger.broken})" if ledger.broken else f"says {ledger.state}"
    raise Refusal(
        Code.NOT_ADMITTED,
        f"{ledger.migration!r} stays closed: {why}, and its journal {journal}, so it is not proved which device holds "
        f"every write. Its witness, in the state directory of its host, would admit it; so would `cutover adopt "
        f"{ledger.migration}`.",
    )


def _runs_admitted(witness: WitnessView, ledger: Ledger, tried: Collection[Try]) -> Iterator[int]:
    """By the journal: the runs of this host in which the migration was admitted, or may have been."""
    for record in (entry.record for entry in ledger.entries):
        is_same = (record.host, record.uuid) == (witness.host, witness.uuid)
        if is_same and record.life and Try(run=record.run, life=record.life) not in tried:
            yield record.run


def _knows_of_clear(witness: WitnessView | None, flag: Entry | None) -> bool:
    """Whether the host had this clear in mind: it notes that a flag is spent before it asks for the clear."""
    return (
        witness is not None
        and flag is not None
        and isinstance(flag.record, FlagClearRecord)
        and flag.record.set_digest == witness.spent_flag_digest
    )


def _refuse_unknown_decision(witness: WitnessView, ledger: Ledger) -> None:
    """Ahead of the witness is only what startup decided before the host could write it down."""
    newer = [entry for entry in _decisions(ledger) if entry.record.decision > witness.decision]
    if not all(is_own(entry) for entry in newer):
        raise _closed(
            witness,
            f"the journal records decision {ledger.decision} of this host, and its witness is only at decision "
            f"{witness.decision}",
            "the newest witness would admit it",
        )


def _decisions(ledger: Ledger) -> list[Entry]:
    return [
        entry
        for entry in ledger.entries
        if isinstance(entry.record, StateRecord | RepairRecord) and entry.record.uuid == ledger.uuid
    ]


def _words(told: tuple[State | None, Side, int]) -> str:
    state, authority, attempt = told
    return f"{state or 'its removal'} with authority {authority} in attempt {attempt}"


def _closed(what: WitnessView | Ledger, why: str, admits: str) -> Refusal:
    return Refusal(Code.NOT_ADMITTED, f"{what.migration!r} stays closed: {why}; {admits}.")
